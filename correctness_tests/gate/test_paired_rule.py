"""The rule on one comparison: its bounds, its errors by simulation, and the effect of throttling."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy import stats

from xenc.gate.errors import UnreachableError
from xenc.gate.measuring.blocks import order
from xenc.gate.paired.rule import POWER, Rule, change_in_process, judge_changes
from xenc.gate.verdict import Verdict

RULE = Rule(margin=0.01, must_see=0.05)
TAU = 0.005
RUNS = 20_000


def judged(changes, rule=RULE, comparisons=10):
    return judge_changes(changes, rule, comparisons=comparisons, what="wall time")


def around(mean, spread=TAU, processes=8):
    """Changes with exactly this mean and standard deviation."""
    values = np.linspace(-1, 1, processes)
    return list(mean + spread * values / values.std(ddof=1))


def blocks_of(seconds, throttled=()):
    """Blocks of base and head; `seconds` of the arm, the palindrome and the block's number."""
    ran = [(arm, number) for number in range(8) for arm in order(("base", "head"), number)]
    return [
        {
            "arm": arm, "palindrome": number, "throttled": (arm, number) in throttled,
            "wall_s": seconds(arm, number, at), "device_s": 0.5 * seconds(arm, number, at),
        }
        for at, (arm, number) in enumerate(ran)
    ]  # fmt: skip


@pytest.mark.parametrize(("comparisons", "processes"), [(1, 5), (10, 5), (10, 8), (42, 8)])
@pytest.mark.parametrize(("looks", "error"), [((5, 8), 0.01), ((5,), 0.2)])
def test_bounds_are_students_at_the_divided_error(comparisons, processes, looks, error):
    changes = np.random.default_rng(1).normal(0.01, TAU, processes)
    level = 1 - 2 * error / comparisons / len(looks)
    low, high = stats.t.interval(level, processes - 1, loc=changes.mean(), scale=stats.sem(changes))
    rule = dataclasses.replace(RULE, looks=looks, error=error)
    judgement = judged(list(changes), rule, comparisons)
    assert math.log(judgement.ratio) == pytest.approx((low + high) / 2)
    assert judgement.uncertainty == pytest.approx((high - low) / 2)


@pytest.mark.parametrize(
    ("mean", "spread", "verdict"),
    [
        (0.04, TAU, Verdict.REGRESSED), (0.0, TAU, Verdict.PASS), (0.0099, TAU, Verdict.PASS),
        (-0.04, TAU, Verdict.IMPROVED), (-0.0099, TAU, Verdict.PASS),
        *((mean, 0.05, Verdict.INCONCLUSIVE) for mean in (0.0, 0.03, 0.05)),
    ],
)  # fmt: skip
def test_a_verdict_needs_the_whole_interval_and_names_the_detectable_slowdown(mean, spread, verdict):
    judgement = judged(around(mean, spread))
    assert judgement.verdict is verdict
    assert judgement.detectable == pytest.approx(RULE.detectable(spread, 8, 10))
    assert f"a slowdown of {judgement.detectable:.1%} would have been detected" in judgement.reason


@pytest.mark.parametrize("channel", ["wall_s", "device_s"])
def test_a_palindrome_cancels_linear_drift(channel):
    """Linear in the logarithm, as changes are."""
    blocks = blocks_of(lambda arm, _, at: math.exp(0.02 * at) * (1.03 if arm == "head" else 1))
    assert change_in_process(blocks, channel) == pytest.approx(math.log(1.03), abs=1e-12)


def test_one_outlier_does_not_move_a_process():
    def seconds(arm, number, at, factor=1.0):
        return (1 + 0.001 * number) ** (arm == "head") * (factor if at == 13 else 1)

    clean = change_in_process(blocks_of(seconds), "wall_s")
    for factor in (0.01, 3.0, 1000.0):
        dirty = change_in_process(blocks_of(lambda *where, f=factor: seconds(*where, f)), "wall_s")
        assert abs(dirty - clean) <= 0.0011


def test_any_two_arms_can_be_compared_in_the_palindromes_that_have_both():
    blocks = blocks_of(lambda arm, *_: 1.0)
    seeded = blocks_of(lambda arm, *_: 1.1 if arm == "head" else 1.0)
    names = {"base": "same", "head": "slowed"}
    blocks += [{**each, "arm": names[each["arm"]], "palindrome": 8 + each["palindrome"]} for each in seeded]
    assert change_in_process(blocks, "wall_s", head="slowed", base="same") == pytest.approx(math.log(1.1))
    assert change_in_process(blocks, "wall_s") == 0
    assert change_in_process(blocks, "wall_s", head="slowed") is None


@pytest.mark.parametrize(("spread", "processes"), [(TAU, 5), (TAU, 8), (0.05, 8)])
def test_a_detectable_slowdown_is_detected_with_the_stated_power(spread, processes):
    slowdown = math.log1p(RULE.detectable(spread, processes, 10))
    drawn = np.random.default_rng(0).normal(slowdown, spread, (RUNS, processes))
    bounds = drawn.mean(axis=1) - RULE.critical(processes, 10) * stats.sem(drawn, axis=1)
    regressed = bounds > math.log1p(RULE.margin)
    assert regressed.mean() == pytest.approx(POWER, abs=4 * math.sqrt(POWER * (1 - POWER) / RUNS))
    for row in range(100):
        assert (judged(drawn[row]).verdict is Verdict.REGRESSED) == regressed[row]


@pytest.mark.parametrize(
    ("change", "spread", "verdict"), [(0.01, TAU, Verdict.REGRESSED), (0.05, 0.05, Verdict.PASS)]
)
def test_two_looks_together_keep_to_the_error(change, spread, verdict):
    rule = dataclasses.replace(RULE, error=0.2, looks=(5, 8))
    drawn = np.random.default_rng(2).normal(math.log1p(change), spread, (2000, 8))
    wrong = [verdict in {judged(run[:look], rule, 2).verdict for look in rule.looks} for run in drawn]
    assert np.mean(wrong) < 0.1 + 4 * math.sqrt(0.1 * 0.9 / 2000)
    assert any(wrong)


@pytest.mark.parametrize(
    ("changed", "comparisons", "remedy"),
    [
        *(({"looks": looks}, 10, "measure (5 or )?more") for looks in ((1,), (1, 8), (2,), (2, 3))),
        ({"usual_spread": 0.02}, 10, re.escape("5.0% must be seen: measure more processes")),
        ({"usual_spread": 0.0105}, 2000, "fewer configurations"),
    ],
)
def test_a_rule_that_cannot_detect_must_see_is_refused_with_a_remedy(changed, comparisons, remedy):
    RULE.check(10)
    with pytest.raises(UnreachableError, match=remedy):
        dataclasses.replace(RULE, **changed).check(comparisons)


@pytest.mark.parametrize(
    ("arm", "throttled", "change"),
    [("base", 4, 0.0), ("base", 5, None), ("head", 8, math.log(1.2))],
    ids=["the base in half of them", "the base in more", "the head alone, which the change may have caused"],
)
def test_palindromes_throttled_in_the_base_are_left_out_up_to_half_of_them(arm, throttled, change):
    where = {(arm, number) for number in range(throttled)}
    blocks = blocks_of(lambda arm, number, _: 1.2 if arm == "head" and number < throttled else 1.0, where)
    found = change_in_process(blocks, "wall_s")
    assert found is None if change is None else found == pytest.approx(change)
    assert change_in_process([], "wall_s") is None


@pytest.mark.parametrize("unusable", [4, 8])
def test_too_few_usable_processes_never_pass(unusable):
    judgement = judged([None] * unusable + [0.0001 * each for each in range(8 - unusable)])
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert f"{8 - unusable} of 8 processes are usable, 5 are needed" in judgement.reason


def test_enough_usable_processes_are_judged_without_the_others():
    assert judged([None, None, None, *around(0.0, processes=5)]) == judged(around(0.0, processes=5))
