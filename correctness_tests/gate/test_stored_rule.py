"""Laws of the stored rule: rounds, the drift of sessions, and speed-ups -> one verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenc.gate.stored.entry import Entry, Samples, Speedup, combine, entry_of
from xenc.gate.stored.rule import BLIND_SPOT
from xenc.gate.stored.rule import judge as judge_entry
from xenc.gate.verdict import Verdict

PROTOCOL = {"workload_fingerprint": "abc", "dtype": "float32"}
times = st.floats(1e-3, 10)
rounds = st.lists(times, min_size=3, max_size=12)


def samples(seconds, margin=0.1, **protocol):
    return Samples(seconds=tuple(seconds), protocol={**PROTOCOL, **protocol}, margin=margin)


def judge(head, base, **versions):
    """Against a baseline of one session."""
    return judge_entry(head, None if base is None else entry_of(base), sessions=1, **versions)


@given(rounds)
def test_the_same_samples_pass(seconds):
    assert judge(samples(seconds), samples(seconds)).verdict is Verdict.PASS


@given(rounds, st.floats(1.11, 5))
def test_a_uniform_slowdown_beyond_the_margin_is_a_regression(seconds, factor):
    slower = samples([second * factor for second in seconds])
    judgement = judge(slower, samples(seconds))
    assert judgement.verdict is Verdict.REGRESSED
    assert math.isclose(judgement.ratio, factor, rel_tol=1e-6)
    assert "slower" in judgement.reason


@given(rounds, st.floats(1.001, 1.09))
def test_a_slowdown_within_the_margin_passes(seconds, factor):
    assert judge(samples([s * factor for s in seconds]), samples(seconds)).verdict is Verdict.PASS


@given(rounds, st.floats(0.1, 0.89))
def test_a_speed_up_beyond_the_margin_is_an_improvement(seconds, factor):
    judgement = judge(samples([s * factor for s in seconds]), samples(seconds))
    assert judgement.verdict is Verdict.IMPROVED
    assert judgement.verdict.green


@given(rounds, rounds)
def test_no_sample_is_both_regressed_and_improved_when_the_sides_are_swapped(head, base):
    size = min(len(head), len(base))
    head, base = head[:size], base[:size]
    if judge(samples(head), samples(base)).verdict is Verdict.REGRESSED:
        assert judge(samples(base), samples(head)).verdict is not Verdict.REGRESSED


def test_one_outlying_round_does_not_raise_an_alarm():
    base = [1.0, 1.01, 0.99, 1.0, 1.02]
    assert judge(samples([1.0, 5.0, 1.01, 0.99, 1.0]), samples(base)).verdict is Verdict.PASS


def test_noise_as_wide_as_the_margin_is_inconclusive_and_not_green():
    judgement = judge(samples([0.8, 1.0, 1.25, 0.85, 1.2]), samples([1.0] * 5))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert not judgement.verdict.green


def test_rounds_are_paired_so_unequal_work_per_round_is_no_noise():
    base = [1.0, 3.0, 2.0, 5.0, 4.0]
    judgement = judge(samples([1.2 * second for second in base]), samples(base))
    assert judgement.verdict is Verdict.REGRESSED
    assert judgement.uncertainty < 1e-9


def test_nothing_timed_is_not_measured():
    assert judge(samples([]), samples([1.0] * 5)).verdict is Verdict.NOT_MEASURED


def test_no_baseline_is_new():
    assert judge(samples([1.0] * 5), None).verdict is Verdict.NEW


@pytest.mark.parametrize(
    ("head", "base", "named"),
    [
        (samples([1.0] * 5, dtype="bfloat16"), samples([1.0] * 5), "bfloat16"),
        (samples([1.0] * 5, workload_fingerprint="xyz"), samples([1.0] * 5), "xyz"),
        (samples([1.0] * 4), samples([1.0] * 5), "4 rounds"),
        (samples([1.0] * 2), samples([1.0] * 2), "at least 3"),
    ],
)
def test_what_differs_in_protocol_is_incomparable_and_the_difference_is_named(head, base, named):
    judgement = judge(head, base)
    assert judgement.verdict is Verdict.INCOMPARABLE
    assert named in judgement.reason


def test_differing_versions_are_judged_and_named():
    judgement = judge(
        samples([1.0] * 5),
        samples([1.0] * 5),
        head_versions={"torch": "2.13"},
        base_versions={"torch": "2.11"},
    )
    assert judgement.verdict is Verdict.PASS
    assert judgement.notes == ("torch: baseline 2.11, now 2.13", BLIND_SPOT)


def stored(seconds=1.0, spread=0.0, speedup=None, speedup_spread=0.0, margin=0.1):
    """An entry of several sessions; `speedup` is over "plain"."""
    over = None
    if speedup is not None:
        over = Speedup(reference="plain", times=speedup, spread=speedup_spread)
    return Entry(
        seconds=(seconds,) * 5, protocol=PROTOCOL, margin=margin, spread=spread, speedup=over,
    )  # fmt: skip


def referenced(seconds, reference_seconds, reference="plain"):
    """A head whose rounds all took `seconds`, and the reference's `reference_seconds`."""
    return Samples(
        seconds=(seconds,) * 5, protocol=PROTOCOL, margin=0.1,
        reference=reference, reference_seconds=(reference_seconds,) * 5,
    )  # fmt: skip


def test_several_sessions_are_their_median_round_by_round():
    entry = combine([entry_of(samples(s)) for s in ([1, 2, 9], [2, 3, 7], [3, 7, 8])])
    assert entry.seconds == (2, 3, 8)


@given(rounds, st.floats(0.01, 0.3))
def test_the_spread_is_what_separate_sessions_differ_by_however_unequal_the_rounds(seconds, drift):
    sessions = [[second * math.exp(d) for second in seconds] for d in (-drift, 0, drift)]
    assert math.isclose(combine([entry_of(samples(s)) for s in sessions]).spread, drift, rel_tol=1e-6)


def test_noise_of_single_rounds_is_hardly_spread():
    sessions = [[1.5, 1, 1, 1, 1], [1, 1, 1.5, 1, 1], [1, 1, 1, 1, 0.5]]
    assert combine([entry_of(samples(s)) for s in sessions]).spread == 0


def test_a_speed_up_is_the_median_of_neighbours_and_then_of_sessions():
    entries = [entry_of(referenced(1.0, times)) for times in (2 / 1.1, 2.0, 2.2)]
    assert entries[0].speedup == Speedup(reference="plain", times=pytest.approx(2 / 1.1), spread=None)
    merged = combine(entries).speedup
    assert merged.times == pytest.approx(2.0)
    assert merged.spread == pytest.approx(math.log(1.1))


def test_of_counts_that_sessions_differ_in_the_largest_is_kept():
    entries = [
        Entry(seconds=(1.0,), protocol={}, margin=0.1, spread=None, exact=exact)
        for exact in ({"graphs": 1, "waste": 0.1}, {"graphs": 1, "waste": 0.2})
    ]
    assert combine(entries).exact == {"graphs": 1, "waste": 0.2}


def test_one_session_says_nothing_of_drift_and_the_reason_admits_it():
    entry = combine([entry_of(samples([1.0] * 5))])
    assert entry.spread is None
    judgement = judge_entry(samples([1.0] * 5), entry, sessions=1)
    assert "one session" in judgement.reason
    assert "only the margin allows for it" in judgement.reason
    assert "unknown" not in judge_entry(samples([1.0] * 5), stored(spread=0.01), sessions=3).reason


@pytest.mark.parametrize("head", [1.2, 0.8])
def test_what_drift_alone_may_do_is_inconclusive(head):
    """Every round alike, so nothing but the spread between sessions speaks against a verdict."""
    entry = stored(spread=0.08)
    judgement = judge_entry(samples([head] * 5), entry, sessions=3)
    assert judgement.verdict is (Verdict.INCONCLUSIVE if head > 1 else Verdict.PASS)
    assert judge_entry(samples([head] * 5), stored(spread=0.0), sessions=3).verdict in (
        Verdict.REGRESSED, Verdict.IMPROVED,
    )  # fmt: skip
    if head > 1:
        assert "record more sessions" in judgement.reason


def test_the_uncertainty_is_that_of_the_formula():
    """t at 95% with 2 degrees of freedom is 2.920; one session against the median of three."""
    judgement = judge_entry(samples([1.0] * 5), stored(spread=0.01), sessions=3)
    assert judgement.uncertainty == pytest.approx(2.920 * 0.01 * math.sqrt(1 + math.pi / 6), rel=1e-3)


def test_the_fewer_sessions_the_less_their_spread_is_trusted():
    uncertainties = [
        judge_entry(samples([1.0] * 5), stored(spread=0.01), sessions=sessions).uncertainty
        for sessions in (2, 3, 5, 20)
    ]
    assert uncertainties == sorted(uncertainties, reverse=True)
    assert uncertainties[0] > 3 * uncertainties[-1]


def test_unchanged_code_on_a_drifting_machine_is_seldom_called_a_regression():
    """Sessions drawn from the model: without the spread, one in six would be beyond a margin of 5%."""
    random, red, naive = Random(0), 0, 0
    for _ in range(400):
        drifts = [random.gauss(0, 0.05) for _ in range(4)]
        sessions = [[math.exp(d + random.gauss(0, 0.002)) for _ in range(5)] for d in drifts]
        entry = combine([entry_of(samples(s, margin=0.05)) for s in sessions[:3]])
        head = samples(sessions[3])
        red += judge_entry(head, entry, sessions=3).verdict is Verdict.REGRESSED
        naive += judge_entry(head, replace(entry, spread=0.0), sessions=3).verdict is Verdict.REGRESSED
    assert naive > 50
    assert red < 20


def test_a_machine_that_is_slower_today_is_not_green_and_the_reason_names_the_reference():
    judgement = judge_entry(referenced(1.3, 2.6), stored(speedup=2.0), sessions=3)
    assert judgement.verdict is Verdict.REGRESSED
    assert "the reference is slower too, by 30.0%; the speed-up over plain moved by" in judgement.reason
    assert "+0.0%" in judgement.reason or "-0.0%" in judgement.reason


def test_code_that_is_slower_does_not_blame_the_reference():
    judgement = judge_entry(referenced(1.3, 2.0), stored(speedup=2.0), sessions=3)
    assert judgement.verdict is Verdict.REGRESSED
    assert "slower too" not in judgement.reason
    assert "moved by -23.1%" in judgement.reason


def test_a_reference_that_is_a_little_slower_does_not_excuse_what_is_much_slower():
    """The speed-up's own drift hides its fall here, which is beyond the margin all the same."""
    judgement = judge_entry(referenced(1.3, 2.2), stored(speedup=2.0, speedup_spread=0.2), sessions=3)
    assert judgement.verdict is Verdict.REGRESSED
    assert "slower too" not in judgement.reason


@pytest.mark.parametrize("seconds", [1.0, 0.7], ids=["seconds alike", "seconds faster"])
def test_a_speed_up_that_fell_beyond_the_margin_is_a_regression_whatever_the_seconds(seconds):
    judgement = judge_entry(referenced(seconds, 1.5 * seconds), stored(speedup=2.0), sessions=3)
    assert judgement.verdict is Verdict.REGRESSED
    assert "2.00x before, 1.50x now" in judgement.reason


def test_a_speed_up_that_drifts_more_than_it_fell_is_no_regression():
    entry = stored(speedup=2.0, speedup_spread=0.2)
    assert judge_entry(referenced(1.0, 1.5), entry, sessions=3).verdict is Verdict.PASS


def test_a_speed_up_that_rose_turns_nothing_green():
    """Red seconds stay red: the reference may have become slower for another reason."""
    judgement = judge_entry(referenced(1.3, 4.0), stored(speedup=2.0), sessions=3)
    assert judgement.verdict is Verdict.REGRESSED


@pytest.mark.parametrize("head", [referenced(1.0, 0.1, reference="other"), samples([1.0] * 5)])
def test_a_speed_up_over_another_reference_is_not_judged_and_that_is_said(head):
    judgement = judge_entry(head, stored(speedup=2.0), sessions=3)
    assert judgement.verdict is Verdict.PASS
    assert "speed-up not judged" in judgement.reason


@pytest.mark.parametrize("base", [None, stored(), stored(margin=0.2, speedup=2.0)])
def test_every_judgement_says_what_a_stored_baseline_cannot_see(base):
    assert "--against REF" in judge_entry(samples([1.0] * 5), base, sessions=3).notes[-1]
