"""The real rule on recorded processes: how often it is right on unchanged code and on slower code."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from correctness_tests.gate.paired_runs import CONFIGURATIONS, made_results
from perf_tests.against import NOT_RECORDED, PAIRED, paired_request
from perf_tests.replays import (
    compare_medians,
    pack,
    read,
    recorded_rules,
    replay,
    slowed,
    unpack,
    upper_bound,
)
from xenc.gate import marks as gate_marks
from xenc.gate.paired import verdicts as paired_verdict
from xenc.gate.paired.rule import Rule, change_in_process
from xenc.gate.paired.verdicts import comparisons, judge_campaign
from xenc.gate.verdict import Verdict

RECORDED = Path(__file__).parent / "recorded-cpu.jsonl.gz"
RULES = recorded_rules()
ON_CPU = gate_marks.RULES["cpu"]
EVERY_ARM = ("base", "head", "same", "slowed")
UNCHANGED = 473
"""Replays without more than one false alarm show a rate below one in a hundred, at 95%."""

SLOWER = 93
"""Replays with at most one miss show that 95% are seen, at 95%."""

MADE_RULES = dict.fromkeys(CONFIGURATIONS, Rule(margin=0.01, must_see=0.05))
FIRST, SECOND = CONFIGURATIONS[:2]


@pytest.fixture(scope="module")
def processes():
    return read(RECORDED)


@pytest.fixture
def each_process_is_estimated_once(monkeypatch):
    """The same processes are drawn hundreds of times; the estimate of one does not depend on the others."""
    known = {}

    def remembered(blocks, channel, *, head="head", base="base"):
        key = id(blocks), channel, head, base
        if key not in known:
            known[key] = blocks, change_in_process(blocks, channel, head=head, base=base)
        return known[key][1]  # the blocks are kept, or another list could get their id

    monkeypatch.setattr(paired_verdict, "change_in_process", remembered)


@pytest.fixture
def bounds_are_as_wide_as_in_a_run_of_today(monkeypatch):
    """It judges NOT_RECORDED too, so each comparison has a smaller share of the error."""
    monkeypatch.setattr(paired_verdict, "comparisons", lambda _: comparisons(len(PAIRED["cpu"])))


real = pytest.mark.usefixtures("each_process_is_estimated_once", "bounds_are_as_wide_as_in_a_run_of_today")


def replays(processes, count, seed):
    draw = random.Random(seed)
    return [replay(processes, RULES, draw) for _ in range(count)]


def words(verdicts):
    return {judgement.verdict for judgement in verdicts.configurations.values()}


def not_green(runs):
    return [run for run in runs if not all(word.green for word in words(run))]


def with_outlier(result, arm, place):
    """The same process, one block of an arm three times as long in each configuration."""
    configurations = {}
    for name, found in result["configurations"].items():
        blocks = list(found["blocks"])
        hit = [number for number, block in enumerate(blocks) if block["arm"] == arm]
        at = hit[place % len(hit)]
        blocks[at] = blocks[at] | {channel: 3 * blocks[at][channel] for channel in paired_verdict.CHANNELS}
        configurations[name] = {**found, "blocks": blocks}
    return {**result, "configurations": configurations}


def test_the_recording_is_of_what_is_measured_now(processes):
    assert len(processes) >= 2 * ON_CPU.looks[-1]
    for process in processes:
        assert set(process["configurations"]) == set(RULES)
    assert len(RULES) + len(NOT_RECORDED) == len(PAIRED["cpu"])


@real
def test_unchanged_code_is_hardly_ever_regressed_and_mostly_green(processes):
    runs = replays(processes, UNCHANGED, seed=1)
    called = sum(Verdict.REGRESSED in words(run) for run in runs)
    assert upper_bound(called, UNCHANGED) <= 0.01, Counter(str(word) for run in runs for word in words(run))
    assert len(not_green(runs)) <= 0.05 * UNCHANGED


@real
def test_five_percent_on_any_one_configuration_is_regressed_on_it(processes):
    names = list(RULES)
    slower = {name: [slowed(process, {name: ON_CPU.must_see}) for process in processes] for name in names}
    draw = random.Random(2)
    missed = []
    for number in range(SLOWER):
        name = names[number % len(names)]
        judgement = replay(slower[name], RULES, draw).configurations[name]
        if judgement.verdict is not Verdict.REGRESSED:
            missed.append((name, judgement.reason))
    assert upper_bound(len(missed), SLOWER) <= 0.051, missed


@real
@pytest.mark.parametrize("disturbance", ["half the margin", "drift", "outlier"])
def test_what_is_no_regression_stays_green(processes, disturbance):
    disturbed = {
        "half the margin": lambda number, each: slowed(each, dict.fromkeys(RULES, ON_CPU.margin / 2)),
        "drift": lambda number, each: slowed(each, dict.fromkeys(RULES, 0.2 * (number % 2)), EVERY_ARM),
        "outlier": lambda number, each: with_outlier(each, ("base", "head")[number % 2], 37 * number),
    }[disturbance]
    runs = replays([disturbed(number, each) for number, each in enumerate(processes)], 200, seed=3)
    bad = not_green(runs)
    assert len(bad) <= 0.05 * len(runs), Counter(str(word) for run in bad for word in words(run))


def blocks_in(result):
    return {name: found["blocks"] for name, found in result["configurations"].items()}


def test_a_recorded_process_is_read_back_block_by_block_with_facts_that_break_nothing(tmp_path):
    results = made_results(processes=5, noise=0.002, slowed=0.05)
    path = tmp_path / "recorded.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(pack(result)) + "\n" for result in results)
    assert [blocks_in(result) for result in read(path)] == [blocks_in(result) for result in results]
    judged = judge_campaign([unpack(pack(result)) for result in results], MADE_RULES)
    assert words(judged) == {Verdict.PASS}
    assert all(each.exact == each.remarks == () for each in judged.configurations.values())
    assert judged.timed == judge_campaign(results, MADE_RULES).timed


@pytest.mark.parametrize("arms", [("head",), EVERY_ARM])
def test_only_the_named_arms_of_the_named_configurations_become_slower(arms):
    (result,) = made_results(processes=1)
    before = json.dumps(result)
    longer = slowed(result, {FIRST: 0.05}, arms)
    assert json.dumps(result) == before
    for name, blocks in blocks_in(longer).items():
        for old, new in zip(blocks_in(result)[name], blocks, strict=True):
            factor = 1.05 if name == FIRST and old["arm"] in arms else 1
            assert new == {**old, **{channel: factor * old[channel] for channel in ("wall_s", "device_s")}}


@pytest.mark.parametrize(("noise", "looks"), [({"noise": 0.002}, [5]), ({"between": {SECOND: 0.05}}, [5, 8])])
def test_a_replay_draws_without_replacement_and_stops_at_the_first_look_that_decides(noise, looks):
    seen = []

    def judge(drawn, rules):
        seen.append([id(each) for each in drawn])
        return judge_campaign(drawn, rules)

    made = made_results(processes=12, slowed=0.05, **noise)
    verdicts = replay(made, MADE_RULES, random.Random(0), judge)
    assert [len(drawn) for drawn in seen] == looks
    assert verdicts.processes == looks[-1]
    assert all(len(set(drawn)) == len(drawn) for drawn in seen)
    assert seen[-1][:5] == seen[0]


def test_two_runs_medians_are_compared_head_with_base():
    results = made_results({FIRST: 0.2}, processes=2, noise=0.002)
    assert compare_medians(results[0], results[1], 0.1) == [FIRST]
    assert compare_medians(results[0], results[1], 0.3) == []


@pytest.mark.parametrize(
    ("events", "trials", "bound"),
    [(0, 473, 0.0063), (1, 473, 0.00999), (1, 93, 0.0500), (0, 1, 0.95), (93, 93, 1.0)],
)
def test_the_upper_bound_of_a_rate_is_clopper_and_pearsons(events, trials, bound):
    assert upper_bound(events, trials) == pytest.approx(bound, abs=0.0001)


@pytest.mark.parametrize("device", sorted(PAIRED))
def test_what_is_measured_can_be_judged(device):
    paired_request(device).check()
