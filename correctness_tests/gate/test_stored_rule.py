"""Laws of the stored rule: rounds, the drift between sessions, and speed-ups -> one verdict."""

from __future__ import annotations

import math
import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenc.gate.stored.baseline import Entry, Session
from xenc.gate.stored.rule import judge
from xenc.gate.verdict import Verdict

PROTOCOL = {"workload_fingerprint": "abc", "dtype": "float32"}
EQUAL = (1.0,) * 5
rounds = st.lists(st.floats(1e-3, 10), min_size=3, max_size=12)


def entry(*sessions, margin=0.1, times=None, reference="plain", **protocol):
    """An entry of these rounds of each session, which are `times` as fast as the reference was."""
    times = [None] * len(sessions) if times is None else times
    return Entry(
        protocol={**PROTOCOL, **protocol}, margin=margin,
        reference=None if times[0] is None else reference,
        sessions=tuple(
            Session(
                seconds=tuple(map(float, seconds)),
                reference_seconds=() if faster is None else tuple(faster * second for second in seconds),
            )
            for seconds, faster in zip(sessions, times, strict=True)
        ),
    )  # fmt: skip


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
    judgement = judge(entry([second * factor for second in seconds]), entry(seconds))
    assert judgement.verdict is verdict
    assert math.isclose(judgement.ratio, factor, rel_tol=1e-6)
    assert verdict is not Verdict.REGRESSED or "slower" in judgement.reason


@given(rounds, rounds)
def test_no_two_samples_are_both_regressed_against_each_other(head, base):
    size = min(len(head), len(base))
    head, base = head[:size], base[:size]
    if judge(entry(head), entry(base)).verdict is Verdict.REGRESSED:
        assert judge(entry(base), entry(head)).verdict is not Verdict.REGRESSED


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
        pytest.param(EQUAL, None, Verdict.NEW, id="no baseline"),
    ],
)
def test_the_verdict_on_single_rounds(head, base, verdict):
    assert judge(entry(head), None if base is None else entry(base)).verdict is verdict


@pytest.mark.parametrize(
    ("head", "base", "named"),
    [
        (entry(EQUAL, dtype="bfloat16"), entry(EQUAL), "bfloat16"),
        (entry(EQUAL, workload_fingerprint="xyz"), entry(EQUAL), "xyz"),
        (entry([1.0] * 4), entry(EQUAL), "4 rounds"),
        (entry([1.0] * 2), entry([1.0] * 2), "at least 3"),
    ],
)
def test_a_difference_of_protocol_is_incomparable_and_named(head, base, named):
    judgement = judge(head, base)
    assert judgement.verdict is Verdict.INCOMPARABLE
    assert named in judgement.reason


def drifting(spread=0.0, times=None, times_spread=0.0, sessions=3, **given):
    """An entry whose sessions have these standard deviations of their levels, and of their speed-ups."""
    steps = [number - (sessions - 1) / 2 for number in range(sessions)]
    unit = math.sqrt(sum(step * step for step in steps) / (sessions - 1))
    levels = [[math.exp(spread * step / unit)] * 5 for step in steps]
    faster = None if times is None else [times * math.exp(times_spread * step / unit) for step in steps]
    return entry(*levels, times=faster, **given)


def test_several_sessions_are_their_median_round_by_round():
    assert entry([1, 2, 9], [2, 3, 7], [3, 7, 8]).seconds == (2, 3, 8)


@given(rounds, st.floats(0.01, 0.3))
def test_the_spread_is_the_drift_between_sessions_however_unequal_the_rounds(seconds, drift):
    sessions = [[second * math.exp(d) for second in seconds] for d in (-drift, 0, drift)]
    assert math.isclose(entry(*sessions).spread, drift, rel_tol=1e-6)


def test_noise_of_single_rounds_is_not_spread():
    assert entry([1.5, 1, 1, 1, 1], [1, 1, 1.5, 1, 1], [1, 1, 1, 1, 0.5]).spread == 0


def test_a_speed_up_is_the_median_over_rounds_and_then_over_sessions():
    assert entry(EQUAL, times=[2.0]).speedup_spread is None
    merged = entry(EQUAL, EQUAL, EQUAL, times=[2 / 1.1, 2.0, 2.2])
    assert merged.speedup == pytest.approx(2.0)
    assert merged.speedup_spread == pytest.approx(math.log(1.1))


def test_one_session_has_no_drift_and_the_reason_says_so():
    assert entry(EQUAL).spread is None
    judgement = judge(entry(EQUAL), entry(EQUAL))
    assert "one session" in judgement.reason
    assert "drift between sessions is unknown" in judgement.reason
    assert "unknown" not in judge(entry(EQUAL), drifting(spread=0.01)).reason


@pytest.mark.parametrize(
    ("head", "with_drift", "without"),
    [(1.2, Verdict.INCONCLUSIVE, Verdict.REGRESSED), (0.8, Verdict.PASS, Verdict.IMPROVED)],
)
def test_a_change_that_drift_alone_can_cause_is_not_called(head, with_drift, without):
    """All rounds are equal, so that only the drift makes a verdict uncertain."""
    judgement = judge(entry([head] * 5), drifting(spread=0.08))
    assert judgement.verdict is with_drift
    assert ("record more sessions" in judgement.reason) == (with_drift is Verdict.INCONCLUSIVE)
    assert judge(entry([head] * 5), drifting()).verdict is without


def test_the_uncertainty_follows_the_formula_and_falls_with_more_sessions():
    """t at 95% with 2 degrees of freedom is 2.920; one session against the median of three."""
    found = {n: judge(entry(EQUAL), drifting(spread=0.01, sessions=n)).uncertainty for n in (2, 3, 5, 21)}
    assert found[3] == pytest.approx(2.920 * 0.01 * math.sqrt(1 + math.pi / 6), rel=1e-3)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found[2] > 3 * found[21]


def test_unchanged_code_on_a_drifting_machine_is_seldom_called_a_regression():
    """Sessions drawn from the model. Without the drift one in six would be beyond a margin of 5%."""
    random, red, naive = Random(0), 0, 0
    for _ in range(400):
        drifts = [random.gauss(0, 0.05) for _ in range(4)]
        *three, head = [[math.exp(d + random.gauss(0, 0.002)) for _ in range(5)] for d in drifts]
        base = entry(*three, margin=0.05)
        red += judge(entry(head), base).verdict is Verdict.REGRESSED
        naive += judge(entry(head), entry(base.seconds, margin=0.05)).verdict is Verdict.REGRESSED
    assert naive > 50
    assert red < 20


BLAMED = r"the reference is slower too, by 30\.0%; the speed-up over plain moved by [+-]0\.0%"


@pytest.mark.parametrize(
    ("seconds", "times", "drift", "verdict", "said"),
    [
        pytest.param(1.3, 2.0, 0.0, Verdict.REGRESSED, BLAMED, id="a slower machine is red, and named"),
        pytest.param(
            1.3, 2 / 1.3, 0.0, Verdict.REGRESSED, r"moved by -23\.1%", id="slower code is not excused"
        ),
        pytest.param(1.3, 1.7, 0.2, Verdict.REGRESSED, "", id="a little slower reference is no excuse"),
        pytest.param(1.0, 1.5, 0.0, Verdict.REGRESSED, "2.00x before, 1.50x now", id="fell, equal seconds"),
        pytest.param(0.7, 1.5, 0.0, Verdict.REGRESSED, "2.00x before, 1.50x now", id="fell, less seconds"),
        pytest.param(1.0, 1.5, 0.2, Verdict.PASS, "", id="fell by less than its drift"),
        pytest.param(1.3, 3.1, 0.0, Verdict.REGRESSED, "", id="a higher speed-up does not excuse seconds"),
    ],
)
def test_the_verdict_with_a_speed_up_over_a_reference(seconds, times, drift, verdict, said):
    judgement = judge(entry([seconds] * 5, times=[times]), drifting(times=2.0, times_spread=drift))
    assert judgement.verdict is verdict
    assert re.search(said, judgement.reason)
    assert ("the reference is slower too" in judgement.reason) == (said == BLAMED)


@pytest.mark.parametrize("head", [entry(EQUAL, times=[0.1], reference="other"), entry(EQUAL)])
def test_a_speed_up_over_another_reference_is_not_judged_and_the_reason_says_so(head):
    judgement = judge(head, drifting(times=2.0))
    assert judgement.verdict is Verdict.PASS
    assert "speed-up not judged" in judgement.reason


@pytest.mark.parametrize("base", [None, drifting(), drifting(margin=0.2, times=2.0)])
def test_every_judgement_says_what_a_stored_baseline_cannot_see(base):
    assert "--against REF" in judge(entry(EQUAL), base).notes[-1]
