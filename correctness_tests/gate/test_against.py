"""The paired gate end to end: what it says of two revisions, where, and its exit status."""

from __future__ import annotations

import json

import pytest
import torch

from correctness_tests.gate import paired_suite

FIRST, SECOND = "test_against[cpu-first]", "test_against[cpu-second]"

SLOWER = 'COSTS["second"] = 1.2'


def test_the_items_are_the_performance_suites_own():
    assert paired_suite.IMPORT not in paired_suite.ITEMS
    assert "PAIRED = {" in paired_suite.ITEMS


def test_unchanged_code_passes(against, compare):
    status, output, failures = compare()
    assert status == 0, output
    assert failures == {FIRST: "", SECOND: ""}
    assert "GREEN: 2 PASS" in output
    assert "gate GREEN: 2 PASS" in output
    assert "measuring process 5 of 5" in output
    assert len(against.pids) == 5
    assert against.left() == []


def test_a_terminal_shows_neither_tags_nor_a_table_of_the_head_alone(against, compare):
    _, output, _ = compare()
    assert "The machine: device a made-up machine\n" in output
    assert "details>" not in output
    assert "Name (time in" not in output


def test_what_was_judged_reaches_summary_report_and_picture(against, compare, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(against.path / "summary.md"))
    status, output, _ = compare("--report-dir", "report")
    summary, report = (against.path / name for name in ("summary.md", "report/report.md"))
    (row,) = (line for line in output.splitlines() if line.startswith("| PASS") and "first" in line)
    assert row in summary.read_text()
    assert row in report.read_text()
    assert (against.path / "report" / "against-cpu.png").read_bytes().startswith(b"\x89PNG")
    assert "against-cpu.png" in output
    verdicts = json.loads((against.path / "report" / "report.json").read_text())["verdicts"]
    assert [verdict for verdict, _ in verdicts.values()] == ["PASS", "PASS"]
    assert status == 0


def test_a_slower_head_fails_its_own_item_and_says_by_how_much(against, compare):
    against.head(SLOWER)
    status, output, failures = compare()
    assert status == 1
    assert failures[FIRST] == ""
    assert failures[SECOND].startswith("Failed: REGRESSED: wall time 2")
    assert "% slower" in failures[SECOND]
    assert "second REGRESSED, 20.0% slower" in output
    assert "gate NOT GREEN: 1 PASS, 1 REGRESSED" in output


def test_a_faster_head_passes_and_is_told_to_record(against, compare):
    against.head('COSTS["second"] = 0.8')
    status, output, failures = compare()
    assert status == 0
    assert failures == {FIRST: "", SECOND: ""}
    assert "1 IMPROVED" in output
    assert "record a new baseline with `make baseline`" in output


def test_one_kernel_more_is_a_regression_until_it_is_accepted(against, compare):
    against.head("KERNELS = 101")
    status, output, failures = compare()
    assert status == 1
    assert all(message.startswith("Failed: REGRESSED: kernels: 100 -> 101") for message in failures.values())
    assert "kernels: 100 -> 101" in output
    accepted = {name: {"kernels": 101, "reason": "a mask"} for name in ("first", "second")}
    (against.path / ".benchmarks").mkdir(exist_ok=True)
    (against.path / ".benchmarks" / "accepted.json").write_text(json.dumps({"cpu": accepted}))
    status, output, failures = compare()
    assert status == 0, output
    assert failures == {FIRST: "", SECOND: ""}


def test_a_recompile_is_a_regression_old_and_new_and_why(against, compare):
    against.head("RECOMPILES = 1\nFINDINGS = 'recompiled: a guard of the head'")
    status, _, failures = compare()
    assert status == 1
    for message in failures.values():
        assert message.startswith("Failed: REGRESSED: recompiles: 0 -> 1, and none is allowed")
        assert "a guard of the head" in message


def test_an_accepted_file_that_cannot_be_used_is_named_before_anything_is_measured(against, compare):
    (against.path / ".benchmarks").mkdir(exist_ok=True)
    (against.path / ".benchmarks" / "accepted.json").write_text("{")
    status, output, failures = compare()
    assert status == 1
    assert all("NOT MEASURED: " in message and "accepted.json" in message for message in failures.values())
    assert "Traceback" not in output
    assert against.pids == []


def test_failed_controls_measure_nothing(against, compare):
    against.head("SEEDED = 0.0")
    status, output, failures = compare()
    assert status == 1
    assert all("NOT MEASURED: the controls failed" in message for message in failures.values())
    assert "**Controls FAILED**: " in output
    assert "gate NOT GREEN: 2 NOT MEASURED" in output


def test_what_is_undecided_is_measured_until_it_is(against, compare):
    against.head("BETWEEN = 0.015")
    status, output, _ = compare()
    assert "undecided after 5 processes" in output
    assert "measuring process 8 of 8" in output
    assert len(against.pids) == 8
    assert status == 0, output


def test_what_stays_undecided_is_inconclusive(against, compare):
    against.head("BETWEEN = 0.05")
    status, output, failures = compare()
    assert status == 1
    assert all(message.startswith("Failed: INCONCLUSIVE: wall time") for message in failures.values())
    assert len(against.pids) == 8
    assert "repeat on a quieter machine" in output


def test_uncommitted_changes_are_compared_and_named(against, compare):
    against.head(SLOWER, committed=False)
    before = against.state()
    status, output, failures = compare()
    assert status == 1
    assert "REGRESSED" in failures[SECOND]
    assert "with uncommitted changes in xenc/__init__.py" in output
    assert against.state() == before


def test_uncommitted_changes_are_not_recorded(against, gate):
    against.head(SLOWER, committed=False)
    status, output, _ = gate("--record-baseline")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "commit or stash the changes" in output


def test_without_against_pairs_are_left_out_and_not_missed(against, gate):
    status, output, failures = gate("--record-baseline")
    assert status == 0, output
    assert set(failures) == {"test_ordinary"}
    status, output, failures = gate("--benchmark-compare")
    assert status == 0, output
    assert set(failures) == {"test_ordinary"}
    assert against.pids == []


def test_an_unfavourable_configuration_counts_though_its_item_was_left_out(against, compare):
    against.head(SLOWER)
    status, output, failures = compare("-k", "first")
    assert status == 1
    assert failures == {FIRST: ""}
    assert "gate NOT GREEN: 1 PASS, 1 REGRESSED" in output


def test_no_pair_selected_at_all_is_not_measured(against, compare):
    status, output, _ = compare("-k", "ordinary")
    assert status == 1
    assert "gate NOT GREEN" in output
    assert against.pids == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_pairs_on_a_gpu_without_a_gpu_are_not_measured(against, compare):
    status, output, failures = compare(marker="gpu")
    assert status == 1
    assert "NOT MEASURED: no CUDA device" in failures["test_against[gpu-third]"]
    assert "During handling" not in output
    assert "gate NOT GREEN: 1 NOT MEASURED" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--against", "base"), "needs --benchmark-compare"),
        (("--against", "base", "--record-baseline"), "needs --benchmark-compare"),
        (("--accept-unpaired", "why", "--benchmark-compare"), "needs --against REF"),
        (("--against", "base", "--accept-unpaired", " ", "--benchmark-compare"), "needs a reason"),
    ],
    ids=["no comparison", "a recording", "no revision", "a blank reason"],
)
def test_options_that_make_no_sense_are_refused(against, gate, arguments, said):
    status, output, _ = gate(*arguments)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert said in output
    assert against.pids == []
