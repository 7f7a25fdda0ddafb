"""The paired gate end to end: verdicts on two revisions, where they are shown, and exit statuses."""

from __future__ import annotations

import json

import pytest
import torch

from correctness_tests.gate.paired_suite import PAIRED

FIRST, SECOND = "test_pair[first]", "test_pair[second]"
SLOWER = 'COSTS["second"] = 1.2'


def test_unchanged_code_passes_in_terminal_summary_report_and_picture(against, compare, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(against.path / "summary.md"))
    status, output, failures = compare("--gate-report", "report")
    assert status == 0, output
    assert failures == {FIRST: "", SECOND: ""}
    assert "gate GREEN: 2 PASS" in output
    assert "measuring process 5 of 5" in output
    assert "The machine: device a made-up machine\n" in output
    assert "Name (time in" not in output  # pytest-benchmark's table of the head alone
    assert len(against.pids) == 5
    assert against.left() == []
    summary, report = (against.path / name for name in ("summary.md", "report/report.md"))
    (row,) = (line for line in output.splitlines() if line.startswith("| PASS") and "first" in line)
    assert row in summary.read_text()
    assert row in report.read_text()
    assert (against.path / "report" / "against-cpu.png").read_bytes().startswith(b"\x89PNG")
    assert "against-cpu.png" in output
    verdicts = json.loads((against.path / "report" / "report.json").read_text())["verdicts"]
    assert [verdict for verdict, _ in verdicts.values()] == ["PASS", "PASS"]


RECOMPILED = "RECOMPILES = 1\nFINDINGS = 'recompiled: a guard of the head'"


@pytest.mark.parametrize(
    ("code", "first", "second", "said", "processes"),
    [
        (SLOWER, "", "REGRESSED: wall time 2", "NOT GREEN: test_pair[second] REGRESSED, +20.0%", 5),
        ('COSTS["second"] = 0.8', "", "", "record a new baseline (`--gate-record`)", 5),
        ("KERNELS = 101", *["REGRESSED: kernels: 100 -> 101"] * 2, "kernels: 100 -> 101", 5),
        (RECOMPILED, *["REGRESSED: recompiles: 0 -> 1, and none is allowed"] * 2, "a guard of the head", 5),
        ("SEEDED = 0.0", *["NOT MEASURED: the controls failed"] * 2, "**Controls FAILED**: ", 8),
        ("BETWEEN = 0.015", "", "", "undecided after 5 processes", 8),
        ("BETWEEN = 0.05", *["INCONCLUSIVE: wall time"] * 2, "repeat on a quieter machine", 8),
    ],
    ids=["slower", "faster", "a kernel more", "recompiled", "failed controls", "undecided", "inconclusive"],
)
def test_each_configuration_gets_its_verdict_after_as_many_processes_as_it_takes(
    against, compare, code, first, second, said, processes
):
    against.head(code)
    status, output, failures = compare()
    assert status == (1 if second else 0)
    for name, start in ((FIRST, first), (SECOND, second)):
        assert failures[name].startswith(f"Failed: {start}") if start else failures[name] == ""
    assert said in output
    assert f"gate {'NOT GREEN' if second else 'GREEN'}: " in output
    assert len(against.pids) == processes


@pytest.mark.parametrize("kernels", [101, None], ids=["accepted", "unreadable"])
def test_growth_may_be_accepted_and_a_file_that_cannot_be_used_stops_the_measurement(
    against, compare, kernels
):
    against.head("KERNELS = 101")
    accepted = {
        f"test_pairs.py::{name}": {"kernels": kernels, "reason": "a mask"} for name in (FIRST, SECOND)
    }
    (against.path / ".benchmarks").mkdir(exist_ok=True)
    (against.path / ".benchmarks" / "accepted.json").write_text(json.dumps({"cpu": accepted}))
    status, output, failures = compare()
    assert status == (0 if kernels else 1), output
    for message in failures.values():
        assert message == "" if kernels else "NOT MEASURED: " in message and "accepted.json" in message
    assert "Traceback" not in output
    assert len(against.pids) == (5 if kernels else 0)


def test_uncommitted_changes_are_compared_and_named_but_not_recorded(against, compare, run_gate):
    against.head(SLOWER, committed=False)
    before = against.state()
    status, output, failures = compare()
    assert status == 1
    assert "REGRESSED" in failures[SECOND]
    assert "with uncommitted changes in made/__init__.py" in output
    status, output, _ = run_gate("--gate-record")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "commit or stash the changes" in output
    assert against.state() == before


def test_without_against_paired_tests_are_deselected_and_not_missed(against, run_gate):
    for option in ("--gate-record", "--benchmark-compare"):
        status, output, failures = run_gate(option)
        assert status == 0, output
        assert set(failures) == {"test_ordinary"}
    assert against.pids == []


@pytest.mark.parametrize(
    ("selected", "tally", "processes"),
    [("first", "1 NOT MEASURED, 1 PASS", 5), ("ordinary", "1 NOT MEASURED", 0)],
    ids=["what is left out is not measured", "without a pair nothing is measured"],
)
def test_deselecting_turns_nothing_green(against, compare, selected, tally, processes):
    against.head(SLOWER)
    status, output, failures = compare("-k", selected)
    assert status == 1
    assert failures.pop(FIRST, "") == ""
    (message,) = failures.values()
    assert "NOT MEASURED: " in message
    assert f"gate NOT GREEN: {tally}" in output
    assert len(against.pids) == processes
    if processes:
        assert set(failures) == {SECOND}
        assert "this run left it out; the gate needs a full run" in message
        assert "**NOT GREEN: 1 test was left out; what was measured is green**" in output
        assert "+20.0%" not in output


def test_tests_of_a_device_that_is_not_measured_are_not_missed(against, compare):
    status, output, failures = compare("--deselect", "test_pairs.py::test_pair[third]")
    assert status == 0, output
    assert set(failures) == {FIRST, SECOND}


@pytest.mark.parametrize(
    ("slower", "second"),
    [("1.02", "PASS"), ("1.2", "REGRESSED")],
    ids=["tolerated", "beyond"],
)
def test_a_tests_marker_sets_what_is_tolerated(against, compare, slower, second):
    against.pairs(f"{PAIRED}\n@pytest.mark.gate(margin=0.06, must_see=0.1)")
    against.head(f'COSTS["second"] = {slower}')
    status, output, failures = compare()
    assert status == (second == "REGRESSED"), output
    assert failures[FIRST] == ""
    assert failures[SECOND] == "" if second == "PASS" else "(margin 6.0%, " in failures[SECOND]


def test_the_head_may_be_slowed_on_purpose_and_the_report_says_so(against, compare):
    status, output, failures = compare("--gate-slower", "0.2")
    assert status == 1
    assert all("REGRESSED: wall time 20.0% slower" in message for message in failures.values())
    assert "The head contains a deliberate fault: 20% slower." in output


def test_the_heads_seconds_are_stored_beside_the_bases_whatever_else_marks_the_test(against, compare):
    against.pairs(f"{PAIRED}\n@pytest.mark.benchmark(group='mine')")
    assert compare("--benchmark-json", "stored.json")[0] == 0
    benchmarks = json.loads((against.path / "stored.json").read_text())["benchmarks"]
    assert [each["name"] for each in benchmarks] == [FIRST, SECOND]
    for each in benchmarks:
        head, base = each["stats"]["data"], each["extra_info"]["base_seconds"]
        assert len(head) == len(base) == 5 * 16
        assert [*head, *base] == pytest.approx([0.011] * len([*head, *base]), rel=0.01)
        assert each["group"] == "mine"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_pairs_on_a_gpu_without_a_gpu_are_not_measured(against, compare):
    status, output, failures = compare(marker="gpu")
    assert status == 1
    assert "NOT MEASURED: no CUDA device" in failures["test_pair[third]"]
    assert "During handling" not in output
    assert "gate NOT GREEN: 1 NOT MEASURED" in output
