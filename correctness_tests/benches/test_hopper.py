"""The side-by-side run on a GPU: how goals are judged, who is compared, and that failures stay contained."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os

import numpy as np
import pytest
import torch

from correctness_tests import small_functions
from perf_tests.hopper import kernels, parts
from perf_tests.hopper.children import run_all
from perf_tests.hopper.fleet import Fleet, RemoteRow
from perf_tests.hopper.gate_stage import finish_gate
from perf_tests.hopper.goals import GOALS
from perf_tests.hopper.parts import PARTS, run_part
from perf_tests.hopper.report import markdown
from perf_tests.hopper.results import Results, sound
from perf_tests.hopper.rows import PEER, RECIPE, XENC, chosen_rows, table_rows
from perf_tests.hopper.run import Run
from perf_tests.hopper.setting import ON_GPU, REHEARSAL
from perf_tests.hopper.smoke import PATHS, look
from perf_tests.hopper.stages import STAGES
from perf_tests.hopper.worker import groups
from perf_tests.side_by_side.goal import Goal
from perf_tests.side_by_side.turns import Timed, time_in_turns


def timed(name: str, seconds: list[float], group: str = XENC, **facts) -> Timed:
    """A row that stands."""
    facts = {"output_error": 0.1, "output_tolerance": 0.2, "counts": {"recompiles": 0}, **facts}
    return Timed(group=group, name=name, batch_size=64, seconds=seconds, **facts)


def results(*rows: Timed, **others) -> Results:
    """Three rounds of 10 FLOPs on a device of 100 FLOP/s."""
    work = {"round_pairs": [2, 2, 2], "round_tokens": [8, 8, 8], "round_flops": [10.0, 10.0, 10.0]}
    return Results(peak_flops_per_s=100.0, rows=list(rows), **work, **others)


NOTHING = {"recompiles": 0, "graph_breaks": 0, "eager_fallbacks": 0, "cudagraph_skips": 0}

RECIPE_ROW = timed("compiled-sdpa-sorted", [2.0, 4.0, 8.0], group=RECIPE)
PACKED = timed("packed", [1.0, 1.0, 1.0], device_seconds=[0.2, 0.1, 0.4], waste=0.01)


def goal(name: str) -> Goal:
    return next(goal for goal in GOALS if goal.name.startswith(name))


def test_a_way_with_a_bias_has_the_exact_answer_to_be_compared_with(monkeypatch):
    monkeypatch.setattr(kernels, "_random", lambda *shape: torch.randn(shape, dtype=torch.bfloat16))
    ways, exact = kernels._ways_with_a_bias(2, 40)
    assert 1e-4 < kernels._error(ways["written out, then SDPA"](), exact) < 1e-2


def test_the_best_packed_row_of_the_tables_precision_is_compared():
    slower, eight_bits = timed("packed-eager", [3.0] * 3), timed("packed-float8", [0.1] * 3)
    found = results(RECIPE_ROW, slower, PACKED, eight_bits)
    assert goal("packed, time over the recipe").measured(found) == (pytest.approx(0.25), "packed")
    assert goal("packed, time over the recipe").verdict(found) == "reached, the stretch too"


FAULTS = [
    {"output_error": 0.3}, {"output_error": None}, {"output_error": float("nan")},
    {"counts": {"recompiles": 1}}, {"problem": "no memory"}, {"seconds": []},
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_row_that_is_wrong_or_compiled_or_failed_does_not_count(fault):
    found = results(RECIPE_ROW, dataclasses.replace(PACKED, **fault))
    assert found.row("packed") is None
    assert goal("packed, time over the recipe").verdict(found) == "NOT MEASURED"


def test_shares_of_the_peak_count_the_devices_time_and_the_whole():
    found = results(PACKED)
    assert goal("MFU on the device").measured(found) == (pytest.approx(0.5), "packed")
    assert goal("MFU from texts").measured(found) == (pytest.approx(0.1), "packed")
    assert goal("MFU from texts").verdict(found) == "MISSED by 80%"


@pytest.mark.parametrize(("tau", "floor", "speed"), [(0.95, 0.9, 2.0), (0.5, 0.9, 0.0), (-0.5, 0.0, 0.0)])
def test_eight_bits_count_only_if_the_ranking_holds(tau, floor, speed):
    quantized = timed("packed-float8", [0.5, 0.5, 0.5], kendall_tau=tau, kendall_floor=floor)
    assert goal("float8").measured(results(PACKED, quantized))[0] == pytest.approx(speed)


@pytest.mark.parametrize(
    ("requests", "late", "verdict"), [(10, 0, "reached"), (9, 0, "NOT MEASURED"), (9, 1, "MISSED")]
)
def test_requests_that_were_not_made_do_not_count(requests, late, verdict):
    asked = {"execution": "packed", "requests": requests, "asked_for": 10, **NOTHING, "recompiles": late}
    assert goal("compilations").verdict(results(PACKED, random_requests=asked)) == verdict
    assert goal("compilations").verdict(results(random_requests=asked)) == "NOT MEASURED"


@pytest.mark.parametrize(
    ("quiet", "slowed", "verdict"),
    [
        ("PASS", "REGRESSED", "reached"), ("REGRESSED", "REGRESSED", "MISSED"), ("PASS", "PASS", "MISSED"),
        ("PASS", None, "NOT MEASURED"),
    ],
)  # fmt: skip
def test_the_gate_has_to_be_quiet_on_unchanged_code_and_to_find_the_slowdown(quiet, slowed, verdict):
    said = {"verdicts": {"seed-packed": [quiet, "why"]}}
    if slowed is not None:
        said["slowed"] = {"verdicts": {"seed-packed": [slowed, "why"]}}
    assert goal("the gate").verdict(results(gate=said)) == verdict


def test_more_than_the_peak_is_no_measurement():
    found = results(dataclasses.replace(PACKED, device_seconds=[0.05] * 3))
    assert goal("MFU on the device").measured(found) is None


@pytest.mark.parametrize(("requests", "verdict"), [(999, "NOT MEASURED"), (1000, "reached, the stretch too")])
def test_a_99th_percentile_needs_many_requests(requests, verdict):
    request = {"execution": "packed", "requests": requests, "p50_s": 0.01, "p99_s": 0.011, **NOTHING}
    assert goal("the same, 99th").verdict(results(PACKED, equal_requests=[request])) == verdict


@pytest.mark.parametrize("fault", [{"output_error": 9.9}, {}], ids=["wrong", "compiled"])
def test_requests_under_a_row_that_does_not_stand_do_not_count(fault):
    late = 0 if fault else 1
    request = {"execution": "packed", "requests": 2000, "p50_s": 0.01, "p99_s": 0.01, **NOTHING}
    found = results(
        dataclasses.replace(PACKED, **fault), equal_requests=[{**request, "graph_breaks": late}],
        differing_scores={"packed-deterministic": 0},
    )  # fmt: skip
    for name in ("rank", "the same, 99th", "scores with a bit"):
        assert goal(name).verdict(found) == "NOT MEASURED"


def test_a_run_is_complete_only_if_every_row_stands():
    assert results(PACKED, RECIPE_ROW).complete
    assert not results(PACKED, dataclasses.replace(RECIPE_ROW, problem="no time was left")).complete
    assert not results(PACKED, problems={"landmark": "lost"}).complete


def test_an_empty_run_measures_no_goal_and_a_rehearsal_reaches_none():
    assert {each.verdict(Results()) for each in GOALS} == {"NOT MEASURED"}
    found = results(RECIPE_ROW, PACKED, rehearsal=True)
    assert {each.verdict(found) for each in GOALS} == {"rehearsal", "NOT MEASURED"}


def test_the_report_says_what_is_wrong_with_a_row():
    failed = Timed(group=PEER, name="sentence-transformers, batch 32", batch_size=32, problem="no memory")
    wrong = dataclasses.replace(PACKED, output_error=0.5)
    report = markdown(results(failed, wrong, RECIPE_ROW, problems={"landmark": "lost"}))
    assert "no memory" in report
    assert "0.5 WRONG" in report
    assert "- landmark: lost" in report


class Fake:
    """Scores at once; breaks in the round it is told to."""

    waste = None
    device_seconds = None

    def __init__(self, seen: list[tuple[str, int]], name: str, breaks_in: int | None = None) -> None:
        self.seen, self._name, self._breaks_in = seen, name, breaks_in

    def take_over(self) -> None:
        self.seen.append((self._name, -1))

    def logits(self, pairs):
        number = int(pairs[0][0])
        if number == self._breaks_in:
            raise ValueError("broken\nand more")
        self.seen.append((self._name, number))
        return np.zeros(len(pairs))


ROUNDS = [[(str(number), "document")] for number in range(3)]


def rows_of(**breaks_in: int | None) -> list[tuple[Fake, Timed]]:
    """Rows by name, with the round in which each breaks; they share what they have seen."""
    seen: list[tuple[str, int]] = []
    return [
        (Fake(seen, name, number), Timed(group=XENC, name=name, batch_size=1))
        for name, number in breaks_in.items()
    ]


def take_turns(rows, after_each=lambda: None, time_left=True) -> int:
    return time_in_turns(rows, ROUNDS, after_each=after_each, time_left=lambda: time_left)


def test_rows_take_turns_and_each_round_begins_with_another():
    rows = rows_of(a=None, b=None)
    assert take_turns(rows) == 3
    firsts = [entry for entry in rows[0][0].seen if entry[1] >= 0][
        ::2
    ]  # each scores twice: primed, then timed
    assert firsts == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert all(len(timed.seconds) == 3 for _, timed in rows)


def test_a_row_that_breaks_is_noted_and_the_others_go_on():
    (_, broken), (_, sound) = rows = rows_of(a=1, b=None)
    take_turns(rows)
    assert broken.problem == "ValueError: broken"
    assert len(sound.seconds) == 3


def test_an_error_after_a_turn_costs_no_row_its_rounds():
    def broken() -> None:
        raise OSError("no NVML")

    [(_, sound)] = rows = rows_of(a=None)
    assert take_turns(rows, broken) == 3
    assert (len(sound.seconds), sound.problem) == (3, None)


@pytest.mark.parametrize(("rows", "rounds"), [([], 0), (rows_of(a=None), 1)], ids=["no rows", "no time"])
def test_without_rows_no_round_is_timed_and_without_time_only_the_first(rows, rounds):
    assert take_turns(rows, time_left=bool(not rows)) == rounds
    assert all(len(timed.seconds) == rounds for _, timed in rows)


def test_what_compiles_in_a_turn_is_counted(fresh):
    compiled = small_functions.static(fresh(small_functions.double))

    class Compiles(Fake):
        def logits(self, pairs):
            compiled(torch.ones(int(pairs[0][0]) + 2))  # another size in each round
            return super().logits(pairs)

    late = Timed(group=XENC, name="a", batch_size=1, output_error=0.0, output_tolerance=1.0)
    take_turns([(Compiles([], "a"), late)])
    assert late.counts["recompiles"] == len(ROUNDS)
    assert not late.stands


def test_a_part_that_fails_or_has_no_time_is_a_problem_and_the_results_are_kept(tmp_path, monkeypatch):
    def broken(run):
        raise RuntimeError("lost the device")

    monkeypatch.setattr(parts, "PARTS", {"broken": broken, "late": broken})
    run = Run(REHEARSAL, (), tmp_path, seconds=1000.0)
    run_part(run, "broken")
    run.seconds = 0.0
    run_part(run, "late")
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["problems"] == {"broken": "RuntimeError: lost the device", "late": "no time was left"}
    assert "lost the device" in (tmp_path / "report.md").read_text()


def test_rows_of_one_model_share_a_process_and_rows_that_are_autotuned_do_not_share_theirs():
    together = groups(table_rows(ON_GPU))
    assert sorted(row.name for group in together for row in group) == sorted(
        row.name for row in table_rows(ON_GPU)
    )
    of = {row.name: number for number, group in enumerate(together) for row in group}
    assert of["compiled-sdpa-sorted"] == of["compiled-sdpa-unsorted"]
    assert of["packed"] == of["packed-deterministic"] == of["packed, 16,384 tokens"]
    assert (
        len({of[name] for name in ("packed", "packed, launched one by one", "packed-float8", "bucketed")})
        == 4
    )
    for group in together:
        assert len({row.is_autotuned for row in group}) == 1


@pytest.fixture
def fleet():
    made = Fleet(REHEARSAL)
    yield made
    made.close()


def test_rows_in_other_processes_take_turns_and_a_row_that_fails_costs_no_other(fleet):
    rows = {row.name: row for row in table_rows(REHEARSAL)}
    failing = dataclasses.replace(rows["packed-eager"], name="unheard of")
    told = {}
    chosen = [failing, rows["sdpa-sorted"], rows["sdpa-unsorted"]]
    fleet.make_ready(chosen, 2, 200.0, lambda row, remote, found: told.update({row.name: (remote, found)}))
    assert told["unheard of"] == (None, "KeyError: 'unheard of'")
    pairs, timed = REHEARSAL.workload.round(1), []
    for name in ("sdpa-sorted", "sdpa-unsorted"):
        remote, record = told[name]
        assert record.output_error <= record.output_tolerance
        time_in_turns([(remote, record)], [pairs] * 2, lambda: None, lambda: True, turn=RemoteRow.turn)
        timed.append(record)
    assert all(record.stands and len(record.seconds) == 2 for record in timed)
    assert timed[0].waste < timed[1].waste


def test_a_process_that_does_not_answer_in_time_is_ended_so_that_no_answer_is_taken_for_another(fleet):
    told = {}
    rows = [row for row in table_rows(REHEARSAL) if row.name in ("sdpa-sorted", "sdpa-unsorted")]
    fleet.make_ready(rows, 1, 200.0, lambda row, remote, found: told.update({row.name: remote}))
    with pytest.raises(RuntimeError, match="no answer after 0 s"):
        told["sdpa-sorted"].ask("turn", REHEARSAL.workload.round(0), 1, seconds=0.0)
    with pytest.raises(RuntimeError, match="its process has ended"):
        told["sdpa-unsorted"].ask("turn", REHEARSAL.workload.round(0), 1)


def test_a_row_that_is_not_ready_in_time_is_said_to_be_late(fleet):
    told = {}
    row = next(row for row in table_rows(REHEARSAL) if row.name == "packed")
    fleet.make_ready([row], 1, 0.5, lambda row, remote, found: told.update({row.name: (remote, found)}))
    assert told == {"packed": (None, "not all rows of its model were ready after 0 s")}
    assert multiprocessing.active_children() == []


def test_rows_have_names_of_their_own_and_the_recipe_has_six():
    names = [row.name for row in table_rows(ON_GPU)]
    assert len(set(names)) == len(names)
    assert sum(row.group == RECIPE for row in table_rows(ON_GPU)) == 6


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_parts_and_rows_that_exist(name):
    stage = STAGES[name]
    assert set(stage.parts) <= set(PARTS)
    assert {row.name for row in chosen_rows(ON_GPU, stage.rows)} >= set(stage.rows or ())


def told_by_the_gate(verdict: str, **facts) -> dict:
    """What `gate_check.live` returns."""
    verdicts = {"seed-packed": [verdict, "device time 0.1% slower"]}
    controls = [["base against itself", True, "quiet"]]
    return {"fault": None, "seconds": 9, "processes": 5, "verdicts": verdicts, "controls": controls, **facts}


class FakeGate:
    """Measures at once."""

    def __init__(self, found: dict) -> None:
        self.found, self.results, self.done = found, {"unchanged code": [{"machine": {}}]}, []

    def wait_ready(self, seconds: float) -> None:
        self.done.append("ready")

    def measure(self, say, seconds: float) -> dict:
        self.done.append("measured")
        return self.found

    def close(self) -> None:
        self.done.append("closed")


LOST = {"fault": None, "verdicts": {}, "error": "lost"}


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        (told_by_the_gate("PASS", slowed=told_by_the_gate("REGRESSED")), {}),
        (told_by_the_gate("PASS", slowed=LOST), {"gate, slowed code": "lost"}),
        (
            told_by_the_gate("INCONCLUSIVE", slowed=told_by_the_gate("PASS")),
            {
                "gate, unchanged code": "INCONCLUSIVE, expected PASS",
                "gate, slowed code": "PASS, expected REGRESSED",
            },
        ),
        (LOST, {"gate, unchanged code": "lost"}),
    ],
    ids=["as it should", "half", "wrong", "lost"],
)
def test_a_gate_that_is_not_quiet_or_sees_nothing_is_a_problem(tmp_path, found, problems):
    run, gate = Run(REHEARSAL, (), tmp_path, seconds=1000.0), FakeGate(found)
    finish_gate(run, gate, 10.0)
    assert gate.done == ["ready", "measured", "closed"]
    assert run.results.gate == found
    assert run.results.problems == problems
    report = markdown(run.results)
    told = [each for each in (found, found.get("slowed")) if each and each["verdicts"]]
    assert report.count("5 processes, 9 s") == len(told)
    assert ("FAILED: lost" in report) == ("lost" in problems.values())


RIGHT = {"path": "packed", "problem": None, "error": 0.1, "tolerance": 0.2, "changed": 0, "late": 0}


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (RIGHT, True),
        (RIGHT | {"error": 0.3}, False),
        (RIGHT | {"error": float("nan")}, False),
        (RIGHT | {"changed": 1}, False),
        (RIGHT | {"late": 1}, False),
        ({"path": "packed", "problem": "status 1"}, False),
        ({"path": "tests of kernels", "problem": None, "tests": "9 passed"}, True),
    ],
    ids=str,
)
def test_a_path_is_sound_only_if_it_is_near_the_oracle_twice_the_same_and_compiled_nothing(entry, found):
    assert sound(entry) is found


def test_a_path_is_looked_at_from_texts_to_the_distance_from_the_oracle():
    found = look(PATHS["packed-eager"], REHEARSAL)
    assert sound({"problem": None, **found})
    assert found["spread"] > 0.5


def test_processes_run_at_once_and_each_ending_is_told():
    commands = {
        "quick": ("-c", "print('done')"),
        "fails": ("-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"),
        "hangs": ("-c", "import time; print('here', flush=True); time.sleep(600)"),
    }
    told = []
    ended = run_all(commands, 3.0, os.environ, lambda name, how: told.append(name))
    assert (ended["quick"].problem, ended["quick"].output) == (None, "done\n")
    assert ended["fails"].problem == "status 3\nwhy"
    assert ended["hangs"].problem.startswith("stopped after")
    assert ended["hangs"].problem.endswith("here")
    assert sorted(told) == sorted(commands)
