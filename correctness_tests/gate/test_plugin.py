"""The gate end to end, on a suite with a clock of its own: what it says, where, and its exit status."""

from __future__ import annotations

import json

import pytest
import torch


def test_unchanged_code_passes_and_says_what_was_judged(recorded, gate):
    status, output, failures = gate("--benchmark-compare")
    assert status == 0, output
    assert set(failures) == {"test_sum[first]", "test_sum[second]"}
    assert "gate GREEN: 2 PASS" in output


def test_a_regression_fails_its_own_test_in_junit(recorded, gate, suite):
    suite(work=8)
    status, output, failures = gate("--benchmark-compare")
    assert status == 1
    assert all("REGRESSED" in message and "slower" in message for message in failures.values())
    assert "gate NOT GREEN: 2 REGRESSED" in output


def test_an_improvement_is_green(recorded, gate, suite):
    suite(work=1)
    status, output, _ = gate("--benchmark-compare")
    assert status == 0
    assert "2 IMPROVED" in output


@pytest.mark.parametrize("key", ["recompiles", "graph_breaks", "eager_fallbacks", "cudagraph_skips"])
@pytest.mark.parametrize("arguments", [(), ("--benchmark-compare",)], ids=["bench", "compare"])
def test_anything_that_compiled_in_the_timed_region_fails(recorded, gate, suite, key, arguments):
    suite(**{key: 1, "compile_findings": "recompiled: a guard's reason"})
    status, _, failures = gate(*arguments)
    assert status == 1
    assert all("REGRESSED" in message and "guard's reason" in message for message in failures.values())


def test_a_count_that_grew_beyond_the_baselines_fails_whatever_the_times(suite, gate):
    suite(graphs=1, waste=0.1)
    assert gate("--record-baseline")[0] == 0
    suite(work=1, graphs=2, waste=0.1)
    status, _, failures = gate("--benchmark-compare")
    assert status == 1
    assert all("REGRESSED: graphs: 1 -> 2" in message for message in failures.values())
    suite(waste=0.1)
    status, _, failures = gate("--benchmark-compare")
    assert status == 1
    assert all("NOT MEASURED" in message and "graphs" in message for message in failures.values())


@pytest.mark.parametrize("error", [0.2, float("nan")])
def test_output_error_beyond_tolerance_fails(recorded, gate, suite, error):
    suite(output_error=0.1, output_tolerance=0.1)
    assert gate("--benchmark-compare")[0] == 0
    suite(output_tolerance=0.1, output_error=error) if error == error else suite_with_nan(suite)
    status, _, failures = gate("--benchmark-compare")
    assert status == 1
    assert all("beyond the tolerance" in message for message in failures.values())


def suite_with_nan(suite) -> None:
    class Nan(float):
        def __repr__(self) -> str:
            return "float('nan')"

    suite(output_tolerance=0.1, output_error=Nan("nan"))


def test_a_benchmark_without_baseline_is_new_and_not_green(recorded, gate, suite):
    suite(names=("first", "second", "third"))
    status, _, failures = gate("--benchmark-compare")
    assert status == 1
    assert "NEW" in failures["test_sum[third]"]
    assert failures["test_sum[first]"] == ""


def test_a_removed_benchmark_is_missing_and_fails_under_its_own_name(recorded, gate, suite):
    suite(names=("first",))
    status, _, failures = gate("--benchmark-compare")
    assert status == 1
    assert "MISSING" in failures["test_sum[second]"]


def test_a_partial_run_is_no_gate(recorded, gate):
    status, _, failures = gate("-k", "first", "--benchmark-compare")
    assert status == 1
    assert "NOT MEASURED" in failures["test_sum[second]"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"device": "another machine"}, "another machine"),
        ({"schema": 0}, "schema 0"),
    ],
)
def test_another_device_or_schema_is_incomparable(recorded, gate, damage, named):
    recorded.write_text(json.dumps({**json.loads(recorded.read_text()), **damage}))
    status, _, failures = gate("--benchmark-compare")
    assert status == 1
    assert all("INCOMPARABLE" in message and named in message for message in failures.values())


@pytest.mark.parametrize("key", ["workload_fingerprint", "dtype", "model"])
def test_another_workload_dtype_or_model_is_incomparable(suite, gate, key):
    suite(**{key: "old"})
    assert gate("--record-baseline")[0] == 0
    suite(**{key: "new"})
    status, _, failures = gate("--benchmark-compare")
    assert status == 1
    assert all("INCOMPARABLE" in message and "old" in message for message in failures.values())


def test_differing_versions_are_named_and_judged(recorded, gate):
    content = json.loads(recorded.read_text())
    content["versions"]["torch"] = "0.1"
    recorded.write_text(json.dumps(content))
    status, output, _ = gate("--benchmark-compare")
    assert status == 0
    assert "torch: baseline 0.1, now" in output


def test_a_truncated_baseline_stops_the_run(recorded, gate):
    recorded.write_text(recorded.read_text()[:80])
    status, output, _ = gate("--benchmark-compare")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "not complete JSON" in output


@pytest.mark.parametrize(
    "arguments",
    [("--benchmark-disable",), ("--benchmark-skip",), ("--collect-only",), ("-k", "nothing")],
    ids=" ".join,
)
def test_a_run_that_measures_nothing_is_not_green(recorded, gate, arguments):
    status, output, failures = gate(*arguments, "--benchmark-compare")
    assert status != 0
    assert "gate NOT GREEN" in output
    assert all("NOT MEASURED" in message for message in failures.values())


def test_a_row_that_could_not_run_is_not_measured_for_its_own_reason(recorded, gate, suite):
    suite(not_measured="not installed: pip install it")
    status, _, failures = gate("--benchmark-disable", "--benchmark-compare")
    assert status == 1
    assert all("NOT MEASURED: not installed: pip install it" in message for message in failures.values())


def test_no_benchmark_selected_at_all_is_not_measured(recorded, gate):
    status, output, _ = gate("--benchmark-compare", marker="gpu")
    assert status != 0
    assert "no benchmark was selected" in output


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_suite_without_a_gpu_is_not_measured(gate, pytester, suite):
    suite(work=1, names=("first",), marker="gpu")
    pytester.makeconftest(
        'pytest_plugins = ("xenc.gate.plugin",)\nimport pytest\n'
        'def pytest_runtest_setup(item):\n    pytest.skip("no CUDA device")'
    )
    status, output, failures = gate("--benchmark-compare", marker="gpu")
    assert status == 1
    assert "NOT MEASURED: no CUDA device" in failures["test_sum[first]"]
    assert "NOT GREEN" in output


def test_an_expected_failure_does_not_turn_a_regression_green(recorded, gate, suite, pytester):
    suite(work=8)
    test = pytester.path / "test_timed.py"
    test.write_text(test.read_text().replace("@pytest.mark.cpu", "@pytest.mark.xfail\n@pytest.mark.cpu"))
    status, output, _ = gate("--benchmark-compare")
    assert status == 1
    assert "NOT GREEN: 2 REGRESSED" in output


def test_a_comparison_never_writes_the_baseline(recorded, gate, suite):
    before = recorded.read_text()
    suite(work=1)
    gate("--benchmark-compare", "--benchmark-autosave")
    assert recorded.read_text() == before


def test_judging_and_recording_at_once_is_refused(recorded, gate):
    status, output, _ = gate("--record-baseline", "--benchmark-compare")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "either judged or stored" in output


@pytest.mark.parametrize("swallowed", ["test_timed.py", "0001", "nothing.json"])
def test_a_value_that_is_no_baseline_is_refused(recorded, gate, swallowed):
    status, output, _ = gate("--benchmark-compare", swallowed)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "--benchmark-compare" in output


def test_a_named_baseline_is_used(recorded, gate, pytester):
    elsewhere = recorded.rename(pytester.path / "mine.json")
    assert gate("--benchmark-compare")[0] == 1
    assert gate(f"--benchmark-compare={elsewhere}")[0] == 0


def test_the_verdicts_reach_the_step_summary_and_the_report(recorded, gate, pytester, monkeypatch):
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    gate("--report-dir", "gate-report", "--benchmark-compare")
    assert "| PASS" in summary.read_text()
    content = json.loads((pytester.path / "gate-report" / "report.json").read_text())
    assert [verdict for verdict, _ in content["verdicts"].values()] == ["PASS", "PASS"]
