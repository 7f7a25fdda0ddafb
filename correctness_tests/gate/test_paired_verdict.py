"""Whole runs with known changes, and the verdict that each configuration should get."""

from __future__ import annotations

import dataclasses
import math

import pytest

from correctness_tests.gate.paired_runs import (
    CONFIGURATIONS,
    PALINDROMES,
    made_results,
    made_verdicts,
    set_facts,
)
from xenc.gate.paired.rule import Rule
from xenc.gate.paired.verdicts import CHANNELS, comparisons, judge_campaign
from xenc.gate.verdict import Verdict

RULE = Rule(margin=0.01, must_see=0.05)
FIRST, SECOND = CONFIGURATIONS[:2]
TWENTY = tuple(f"configuration-{number}" for number in range(20))


def results_of(changes=None, **given):
    return made_results(changes, **{"slowed": 0.05, "noise": 0.004, "processes": 8, **given})


def judged(results, **given):
    return made_verdicts(results, RULE, **given)


def words(verdicts):
    return {name: judgement.verdict for name, judgement in verdicts.configurations.items()}


def all_but(verdict, names, others=Verdict.PASS, every=CONFIGURATIONS):
    return {name: verdict if name in names else others for name in every}


def every_block(results, name):
    return [block for result in results for block in result["configurations"][name]["blocks"]]


@pytest.mark.parametrize(
    ("name", "every", "change", "verdict"),
    [
        *((name, CONFIGURATIONS, 0.05, Verdict.REGRESSED) for name in CONFIGURATIONS),
        (TWENTY[7], TWENTY, 0.05, Verdict.REGRESSED),
        (SECOND, CONFIGURATIONS, -0.06, Verdict.IMPROVED),
    ],
)
def test_a_change_is_seen_on_its_configuration_alone(name, every, change, verdict):
    verdicts = judged(results_of({name: change}, names=every))
    assert words(verdicts) == all_but(verdict, [name], every=every)
    assert verdicts.decided
    assert verdicts.configurations[name].ratio == pytest.approx(1 + change, abs=0.01)
    assert "wall time" in verdicts.configurations[name].reason
    assert "device time" in verdicts.configurations[name].reason


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_slowdown_in_one_channel_alone_is_regressed(channel):
    results = results_of()
    for block in every_block(results, FIRST):
        block[channel] *= 1.05 if block["arm"] == "head" else 1
    verdicts = judged(results)
    assert words(verdicts) == all_but(Verdict.REGRESSED, [FIRST])
    regressed = [key for key, each in verdicts.timed.items() if each.verdict is Verdict.REGRESSED]
    assert regressed == [(FIRST, channel)]


def test_the_deliberate_slowdown_is_compared_with_the_twin_in_the_same_palindromes():
    """The twin's other palindromes may have run at another speed."""
    results = results_of()
    for block in every_block(results, FIRST):
        factor = 1.5 if block["palindrome"] >= PALINDROMES else 1
        block.update({channel: factor * block[channel] for channel in CHANNELS})
    assert words(judged(results)) == all_but(Verdict.PASS, ())


@pytest.mark.parametrize(
    ("fact", "line"),
    [
        ({"recompiles": 1}, "recompiles: 0 -> 1, and none is allowed"),
        ({"kernels": 211}, "kernels: 210 -> 211"),
        ({"output_error": math.nan}, "output error: 1e-06 -> nan, beyond the tolerance 0.0001"),
        ({"kendall_tau": 0.9}, "Kendall's tau: none -> 0.9, below the floor 0.95"),
    ],
)
@pytest.mark.parametrize("process", [0, 4])
@pytest.mark.usefixtures("suites_facts")
def test_a_broken_fact_in_one_process_is_regressed_with_both_values_and_its_finding(process, fact, line):
    results = results_of()
    set_facts(results, SECOND, kendall_tau=0.99, kendall_floor=0.95)
    assert words(judged(results)) == all_but(Verdict.PASS, ())
    set_facts(results, SECOND, of=process, finding="[0] size mismatch at index 1", **fact)
    verdicts = judged(results)
    assert words(verdicts) == all_but(Verdict.REGRESSED, [SECOND])
    judgement = verdicts.configurations[SECOND]
    assert judgement.exact == (line,)
    assert judgement.reason.startswith(line)
    assert judgement.findings == ("[0] size mismatch at index 1",)


def test_an_accepted_count_passes_with_a_note_on_its_configuration_alone():
    results = results_of()
    for name in (FIRST, SECOND):
        set_facts(results, name, kernels=211)
    verdicts = judged(results, accepted={SECOND: {"kernels": 211}})
    assert words(verdicts) == all_but(Verdict.REGRESSED, [FIRST])
    assert verdicts.configurations[SECOND].changed == ("kernels: 210 -> 211, accepted",)
    assert verdicts.configurations[FIRST].exact == ("kernels: 210 -> 211",)
    assert verdicts.configurations[FIRST].changed == ()


def test_a_fact_that_the_head_lacks_is_not_measured_but_one_process_is_enough():
    results = results_of()
    set_facts(results, SECOND, kernels=None)
    verdicts = judged(results)
    assert words(verdicts) == all_but(Verdict.NOT_MEASURED, [SECOND])
    assert "kernels: 210 -> none" in verdicts.configurations[SECOND].reason
    results = results_of()
    for result in results[1:]:
        for facts in result["configurations"][SECOND]["facts"].values():
            del facts["kernels"]
            facts["peak_bytes"] = None
    assert words(judged(results)) == all_but(Verdict.PASS, ())


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"same": 0.05}, "base against itself"),
        ({"same": -0.05}, "base against itself"),
        ({"slowed": 0.0}, "deliberate slowdown: PASS"),
        ({"control": False}, "no control ran"),
    ],
)
def test_without_controls_that_held_times_are_not_judged_and_exact_facts_are(broken, why):
    results = results_of({CONFIGURATIONS[2]: 0.2}, **broken)
    set_facts(results, SECOND, recompiles=1)
    verdicts = judged(results)
    assert words(verdicts) == all_but(Verdict.REGRESSED, [SECOND], Verdict.NOT_MEASURED)
    assert why in verdicts.configurations[FIRST].reason
    assert not verdicts.decided or "control" in broken


def test_the_controls_are_the_twin_and_the_twin_with_a_deliberate_slowdown():
    verdicts = judged(results_of())
    found = {(control.name, control.channel): control for control in verdicts.controls}
    assert len(found) == 4
    for (name, _), control in found.items():
        assert control.held
        assert control.configuration == FIRST
        seeded = name == "deliberate slowdown"
        assert control.arms == (("slowed", "same") if seeded else ("same", "base"))
        assert control.judgement.ratio == pytest.approx(1.05 if seeded else 1.0, abs=0.01)


@pytest.mark.parametrize("elsewhere", [{}, {FIRST: 0.2}], ids=["alone", "beside a regression"])
def test_a_run_is_undecided_while_a_configuration_is_inconclusive_without_a_broken_fact(elsewhere):
    results = results_of(elsewhere, between={SECOND: 0.03}, processes=5)
    verdicts = judged(results)
    assert verdicts.configurations[SECOND].verdict is Verdict.INCONCLUSIVE
    assert not verdicts.decided
    assert judged(results_of(elsewhere, processes=5)).decided
    set_facts(results, SECOND, kernels=211)
    assert judged(results).decided


def test_the_error_is_divided_by_the_comparisons_of_configurations_and_twin_in_both_channels():
    results = results_of()
    alone = judge_campaign(results, {FIRST: RULE})
    assert (comparisons(1), comparisons(len(CONFIGURATIONS))) == (4, 10)
    for verdicts, number in ((alone, 4), (judged(results), 10)):
        for judgement in verdicts.timed.values():
            spread = judgement.uncertainty / RULE.critical(8, number) * math.sqrt(8)
            assert judgement.detectable == pytest.approx(RULE.detectable(spread, 8, number))


def test_a_configuration_is_judged_by_its_own_rule():
    rules = {FIRST: dataclasses.replace(RULE, margin=0.001), SECOND: dataclasses.replace(RULE, margin=0.03)}
    between = dict.fromkeys(CONFIGURATIONS, 0.0005)
    results = results_of({FIRST: 0.012, SECOND: 0.012}, noise=0.001, between=between)
    assert words(judge_campaign(results, rules)) == {FIRST: Verdict.REGRESSED, SECOND: Verdict.PASS}
