"""Laws of the verdict: what is green, what is red, and what is neither."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenc.gate.verdict import Samples, Verdict, judge

PROTOCOL = {"workload_fingerprint": "abc", "dtype": "float32"}
times = st.floats(1e-3, 10)
rounds = st.lists(times, min_size=3, max_size=12)


def samples(seconds, margin=0.1, **protocol):
    return Samples(seconds=tuple(seconds), protocol={**PROTOCOL, **protocol}, margin=margin)


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
        (samples([1.0] * 2), samples([1.0] * 2), "fewer than 3"),
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
    assert judgement.notes == ("torch: baseline 2.11, now 2.13",)


def test_only_pass_and_improved_are_green():
    assert {verdict for verdict in Verdict if verdict.green} == {Verdict.PASS, Verdict.IMPROVED}
