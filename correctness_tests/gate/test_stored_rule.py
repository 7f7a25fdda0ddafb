"""Laws of the stored rule: rounds, the drift between sessions, and speed-ups -> one verdict."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenc.gate.stored.entry import Entry, Samples, Speedup, combine, entry_of
from xenc.gate.stored.rule import judge as judge_entry
from xenc.gate.verdict import Verdict

PROTOCOL = {"workload_fingerprint": "abc", "dtype": "float32"}
EQUAL = (1.0,) * 5
rounds = st.lists(st.floats(1e-3, 10), min_size=3, max_size=12)


def samples(seconds, margin=0.1, **protocol):
    return Samples(seconds=tuple(seconds), protocol={**PROTOCOL, **protocol}, margin=margin)


def judge(head, base):
    """Against a baseline of one session."""
    return judge_entry(head, None if base is None else entry_of(base), sessions=1)


def test_only_pass_and_improved_are_green():
    assert {verdict for verdict in Verdict if verdict.green} == {Verdict.PASS, Verdict.IMPROVED}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.89, Verdict.IMPROVED),
        (1.0, 1.0, Verdict.PASS),
        (1.001, 1.09, Verdict.PASS),
        (1.11, 5, Verdict.REGRESSED),
    ],
)
@given(seconds=rounds, share=st.floats(0, 1))
def test_a_uniform_change_is_judged_by_the_margin(low, high, verdict, seconds, share):
    factor = low + share * (high - low)
    judgement = judge(samples([second * factor for second in seconds]), samples(seconds))
    assert judgement.verdict is verdict
    assert math.isclose(judgement.ratio, factor, rel_tol=1e-6)
    assert verdict is not Verdict.REGRESSED or "slower" in judgement.reason


@given(rounds, rounds)
def test_no_two_samples_are_both_regressed_against_each_other(head, base):
    size = min(len(head), len(base))
    head, base = head[:size], base[:size]
    if judge(samples(head), samples(base)).verdict is Verdict.REGRESSED:
        assert judge(samples(base), samples(head)).verdict is not Verdict.REGRESSED


@pytest.mark.parametrize(
    ("head", "base", "verdict"),
    [
        pytest.param(
            (1.0, 5.0, 1.01, 0.99, 1.0), (1.0, 1.01, 0.99, 1.0, 1.02), Verdict.PASS, id="an outlier"
        ),
        pytest.param((0.8, 1.0, 1.25, 0.85, 1.2), EQUAL, Verdict.INCONCLUSIVE, id="noise"),
        pytest.param(
            (1.2, 3.6, 2.4, 6.0, 4.8), (1, 3, 2, 5, 4), Verdict.REGRESSED, id="unequal rounds, paired"
        ),
        pytest.param((), EQUAL, Verdict.NOT_MEASURED, id="nothing was timed"),
        pytest.param(EQUAL, None, Verdict.NEW, id="no baseline"),
    ],
)
def test_the_verdict_on_single_rounds(head, base, verdict):
    assert judge(samples(head), None if base is None else samples(base)).verdict is verdict


@pytest.mark.parametrize(
    ("head", "base", "named"),
    [
        (samples(EQUAL, dtype="bfloat16"), samples(EQUAL), "bfloat16"),
        (samples(EQUAL, workload_fingerprint="xyz"), samples(EQUAL), "xyz"),
        (samples([1.0] * 4), samples(EQUAL), "4 rounds"),
        (samples([1.0] * 2), samples([1.0] * 2), "at least 3"),
    ],
)
def test_a_difference_of_protocol_is_incomparable_and_named(head, base, named):
    judgement = judge(head, base)
    assert judgement.verdict is Verdict.INCOMPARABLE
    assert named in judgement.reason


def stored(spread=0.0, speedup=None, speedup_spread=0.0, margin=0.1):
    """An entry of several sessions; `speedup` is over "plain"."""
    over = None if speedup is None else Speedup(reference="plain", times=speedup, spread=speedup_spread)
    return Entry(seconds=EQUAL, protocol=PROTOCOL, margin=margin, spread=spread, speedup=over)


def referenced(seconds, reference_seconds, reference="plain"):
    """A head whose rounds all took `seconds`, and the reference's `reference_seconds`."""
    return Samples(
        seconds=(seconds,) * 5, protocol=PROTOCOL, margin=0.1,
        reference=reference, reference_seconds=(reference_seconds,) * 5,
    )  # fmt: skip


def combined(*sessions, **given):
    return combine([entry_of(samples(seconds, **given)) for seconds in sessions])


def test_several_sessions_are_their_median_round_by_round():
    assert combined([1, 2, 9], [2, 3, 7], [3, 7, 8]).seconds == (2, 3, 8)


@given(rounds, st.floats(0.01, 0.3))
def test_the_spread_is_the_drift_between_sessions_however_unequal_the_rounds(seconds, drift):
    sessions = [[second * math.exp(d) for second in seconds] for d in (-drift, 0, drift)]
    assert math.isclose(combined(*sessions).spread, drift, rel_tol=1e-6)


def test_noise_of_single_rounds_is_not_spread():
    assert combined([1.5, 1, 1, 1, 1], [1, 1, 1.5, 1, 1], [1, 1, 1, 1, 0.5]).spread == 0


def test_a_speed_up_is_the_median_over_rounds_and_then_over_sessions():
    entries = [entry_of(referenced(1.0, times)) for times in (2 / 1.1, 2.0, 2.2)]
    assert entries[0].speedup == Speedup(reference="plain", times=pytest.approx(2 / 1.1), spread=None)
    merged = combine(entries).speedup
    assert merged.times == pytest.approx(2.0)
    assert merged.spread == pytest.approx(math.log(1.1))


def test_one_session_has_no_drift_and_the_reason_says_so():
    entry = combined(EQUAL)
    assert entry.spread is None
    judgement = judge_entry(samples(EQUAL), entry, sessions=1)
    assert "one session" in judgement.reason
    assert "drift between sessions is unknown" in judgement.reason
    assert "unknown" not in judge_entry(samples(EQUAL), stored(spread=0.01), sessions=3).reason


@pytest.mark.parametrize(
    ("head", "with_drift", "without"),
    [(1.2, Verdict.INCONCLUSIVE, Verdict.REGRESSED), (0.8, Verdict.PASS, Verdict.IMPROVED)],
)
def test_a_change_that_drift_alone_can_cause_is_not_called(head, with_drift, without):
    """All rounds are equal, so that only the drift makes a verdict uncertain."""
    judgement = judge_entry(samples([head] * 5), stored(spread=0.08), sessions=3)
    assert judgement.verdict is with_drift
    assert ("record more sessions" in judgement.reason) == (with_drift is Verdict.INCONCLUSIVE)
    assert judge_entry(samples([head] * 5), stored(spread=0.0), sessions=3).verdict is without


def test_the_uncertainty_follows_the_formula_and_falls_with_more_sessions():
    """t at 95% with 2 degrees of freedom is 2.920; one session against the median of three."""
    found = {
        n: judge_entry(samples(EQUAL), stored(spread=0.01), sessions=n).uncertainty for n in (2, 3, 5, 20)
    }
    assert found[3] == pytest.approx(2.920 * 0.01 * math.sqrt(1 + math.pi / 6), rel=1e-3)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found[2] > 3 * found[20]


def test_unchanged_code_on_a_drifting_machine_is_seldom_called_a_regression():
    """Sessions drawn from the model. Without the spread one in six would be beyond a margin of 5%."""
    random, red, naive = Random(0), 0, 0
    for _ in range(400):
        drifts = [random.gauss(0, 0.05) for _ in range(4)]
        sessions = [[math.exp(d + random.gauss(0, 0.002)) for _ in range(5)] for d in drifts]
        entry, head = combined(*sessions[:3], margin=0.05), samples(sessions[3])
        red += judge_entry(head, entry, sessions=3).verdict is Verdict.REGRESSED
        naive += judge_entry(head, replace(entry, spread=0.0), sessions=3).verdict is Verdict.REGRESSED
    assert naive > 50
    assert red < 20


BLAMED = r"the reference is slower too, by 30\.0%; the speed-up over plain moved by [+-]0\.0%"


@pytest.mark.parametrize(
    ("head", "drift", "verdict", "said"),
    [
        pytest.param((1.3, 2.6), 0.0, Verdict.REGRESSED, BLAMED, id="a slower machine is red, and named"),
        pytest.param(
            (1.3, 2.0), 0.0, Verdict.REGRESSED, r"moved by -23\.1%", id="slower code is not excused"
        ),
        pytest.param((1.3, 2.2), 0.2, Verdict.REGRESSED, "", id="a little slower reference is no excuse"),
        pytest.param((1.0, 1.5), 0.0, Verdict.REGRESSED, "2.00x before, 1.50x now", id="fell, equal seconds"),
        pytest.param((0.7, 1.05), 0.0, Verdict.REGRESSED, "2.00x before, 1.50x now", id="fell, less seconds"),
        pytest.param((1.0, 1.5), 0.2, Verdict.PASS, "", id="fell by less than its drift"),
        pytest.param((1.3, 4.0), 0.0, Verdict.REGRESSED, "", id="a higher speed-up does not excuse seconds"),
    ],
)
def test_the_verdict_with_a_speed_up_over_a_reference(head, drift, verdict, said):
    entry = stored(speedup=2.0, speedup_spread=drift)
    judgement = judge_entry(referenced(*head), entry, sessions=3)
    assert judgement.verdict is verdict
    assert re.search(said, judgement.reason)
    assert ("the reference is slower too" in judgement.reason) == (said == BLAMED)


@pytest.mark.parametrize("head", [referenced(1.0, 0.1, reference="other"), samples(EQUAL)])
def test_a_speed_up_over_another_reference_is_not_judged_and_the_reason_says_so(head):
    judgement = judge_entry(head, stored(speedup=2.0), sessions=3)
    assert judgement.verdict is Verdict.PASS
    assert "speed-up not judged" in judgement.reason


@pytest.mark.parametrize("base", [None, stored(), stored(margin=0.2, speedup=2.0)])
def test_every_judgement_says_what_a_stored_baseline_cannot_see(base):
    assert "--against REF" in judge_entry(samples(EQUAL), base, sessions=3).notes[-1]
