"""Replays of recorded processes: nothing is lost in the record, and a replay is a whole run."""

from __future__ import annotations

import gzip
import json
import random

import pytest

from correctness_tests.gate.paired_runs import CONFIGURATIONS, made_results
from perf_tests.against import PAIRED, paired_request
from perf_tests.replays import compare_medians, pack, read, replay, slowed, unpack, upper_bound
from xenc.gate.paired.rule import Rule
from xenc.gate.paired.verdicts import judge_campaign
from xenc.gate.verdict import Verdict

RULES = dict.fromkeys(CONFIGURATIONS, Rule(margin=0.01, must_see=0.05))
FIRST, SECOND = CONFIGURATIONS[:2]


def blocks_in(result):
    return {name: found["blocks"] for name, found in result["configurations"].items()}


def of_arm(result, name, arm):
    return [block for block in result["configurations"][name]["blocks"] if block["arm"] == arm]


def test_a_recorded_process_is_read_back_block_by_block(tmp_path):
    results = made_results(processes=3)
    path = tmp_path / "recorded.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(pack(result)) + "\n" for result in results)
    assert [blocks_in(result) for result in read(path)] == [blocks_in(result) for result in results]


def test_a_recorded_process_has_facts_that_break_nothing():
    results = made_results(processes=5, noise=0.002, slowed=0.05)
    judged = judge_campaign([unpack(pack(result)) for result in results], RULES)
    assert {each.verdict for each in judged.configurations.values()} == {Verdict.PASS}
    assert all(each.exact == each.notes == () for each in judged.configurations.values())
    assert judged.timed == judge_campaign(results, RULES).timed


@pytest.mark.parametrize("arms", [("head",), ("base", "head", "same", "slowed")])
def test_only_the_named_arms_of_the_named_configurations_become_slower(arms):
    (result,) = made_results(processes=1)
    before = json.dumps(result)
    longer = slowed(result, {FIRST: 0.05}, arms)
    assert json.dumps(result) == before
    for name, found in longer["configurations"].items():
        for old, new in zip(result["configurations"][name]["blocks"], found["blocks"], strict=True):
            factor = 1.05 if name == FIRST and old["arm"] in arms else 1
            scaled = {channel: factor * old[channel] for channel in ("wall_s", "device_s")}
            assert new == {**old, **scaled}


def test_a_replay_draws_without_replacement_and_stops_at_the_first_look_that_decides():
    quiet = made_results(processes=12, noise=0.002, slowed=0.05)
    noisy = made_results(processes=12, between={SECOND: 0.05}, slowed=0.05)
    for processes, looks in ((quiet, [5]), (noisy, [5, 8])):
        seen = []

        def judge(drawn, rules, seen=seen):
            seen.append([id(each) for each in drawn])
            return judge_campaign(drawn, rules)

        verdicts = replay(processes, RULES, random.Random(0), judge)
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
    paired_request(device, None).check()
