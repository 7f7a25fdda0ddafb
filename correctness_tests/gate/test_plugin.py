"""The gate end to end, on a suite with a clock of its own: verdicts, messages and exit statuses."""

from __future__ import annotations

import json

import pytest

from xenc.gate import publish, report

FIRST, SECOND = "test_sum[first]", "test_sum[second]"
COMPILED = ("recompiles", "graph_breaks", "eager_fallbacks", "cudagraph_skips")
TOLERANCE = {"output_tolerance": 0.1}
FACTS = {"exact": {"graphs": 1, "padded_share": 0.1}}
WHY = {"compile_findings": "recompiled: a guard's reason"}


class Nan(float):
    def __repr__(self) -> str:
        return "float('nan')"


@pytest.mark.parametrize(
    ("changes", "arguments", "word", "said"),
    [
        pytest.param({}, (), "PASS", "", id="unchanged code"),
        pytest.param({"work": 8}, (), "REGRESSED", "slower", id="slower code"),
        pytest.param({"work": 1}, (), "IMPROVED", "", id="faster code"),
        *(pytest.param({key: 1, **WHY}, (), "REGRESSED", "guard's reason", id=key) for key in COMPILED),
        pytest.param({"output_error": 0.1, **TOLERANCE}, (), "PASS", "", id="an output error allowed"),
        pytest.param({"output_error": 0.2, **TOLERANCE}, (), "REGRESSED", "beyond", id="too large"),
        pytest.param({"output_error": Nan("nan"), **TOLERANCE}, (), "REGRESSED", "beyond", id="not a number"),
        *(
            pytest.param({}, (option,), "NOT MEASURED", "", id=option)
            for option in ("--benchmark-disable", "--benchmark-skip")
        ),
        pytest.param(
            {"not_measured": "not installed"}, ("--benchmark-disable",), "NOT MEASURED", "not installed",
            id="a row that says why it could not run",
        ),
    ],
)  # fmt: skip
def test_each_benchmark_gets_its_verdict_in_junit_and_in_the_last_line(
    recorded, run_gate, suite, changes, arguments, word, said
):
    suite(**changes)
    status, output, failures = run_gate(*arguments, "--benchmark-compare")
    green = word in ("PASS", "IMPROVED")
    assert status == (0 if green else 1), output
    assert f"gate {'GREEN' if green else 'NOT GREEN'}: 2 {word}" in output
    assert set(failures) == {FIRST, SECOND}
    for message in failures.values():
        assert message == "" if green else word in message and said in message


@pytest.mark.parametrize("key", COMPILED)
def test_what_compiled_in_the_timed_region_fails_a_run_that_judges_nothing(run_gate, suite, key):
    suite(**{key: 1, **WHY})
    status, _, failures = run_gate()
    assert status == 1
    assert all("REGRESSED" in message and "guard's reason" in message for message in failures.values())


@pytest.mark.parametrize(
    ("stored", "head", "said"),
    [
        (FACTS, {"work": 1, "exact": {"graphs": 2, "padded_share": 0.1}}, "REGRESSED: graphs: 1 -> 2"),
        (FACTS, {"exact": {"graphs": 1, "padded_share": 0.2}}, "REGRESSED: padded share: 0.1 -> 0.2"),
        (FACTS, {"exact": {"padded_share": 0.1}}, "NOT MEASURED: in the baseline, but not measured"),
        ({"exact": {"n": -5}}, {"exact": {"n": -4}}, "REGRESSED: n: -5 -> -4"),
        ({"exact": {"n": 1}}, {"exact": {"n": 1, "recompiles": 7}}, "REGRESSED: recompiles: none -> 7"),
        *(
            ({key: "old"}, {key: "new"}, f"INCOMPARABLE: {key} is new, the baseline's is old")
            for key in ("workload_fingerprint", "dtype", "model")
        ),
    ],
)
def test_facts_and_protocol_are_compared_with_the_baselines_whatever_the_times(
    suite, run_gate, stored, head, said
):
    suite(**stored)
    assert run_gate("--gate-record")[0] == 0
    suite(**head)
    status, _, failures = run_gate("--benchmark-compare")
    assert status == 1
    assert all(said in message for message in failures.values())


def test_a_fact_that_the_baseline_lacks_is_named(suite, run_gate):
    suite(exact={"n": 1})
    assert run_gate("--gate-record")[0] == 0
    suite(exact={"n": 1, "more": 9})
    status, output, _ = run_gate("--benchmark-compare")
    assert status == 0
    assert "more: none -> 9, not measured on the base" in output


@pytest.mark.parametrize(
    ("names", "arguments", "name", "word"),
    [
        (("first", "second", "third"), (), "third", "NEW"),
        (("first",), (), "second", "MISSING"),
        (("first", "second"), ("-k", "first"), "second", "NOT MEASURED"),
    ],
    ids=["new", "removed", "deselected"],
)
def test_a_benchmark_that_only_one_side_has_fails_under_its_own_name(
    recorded, run_gate, suite, names, arguments, name, word
):
    suite(names=names)
    status, _, failures = run_gate(*arguments, "--benchmark-compare")
    assert status == 1
    assert [test for test, message in failures.items() if message] == [f"test_sum[{name}]"]
    assert word in failures[f"test_sum[{name}]"]


@pytest.mark.parametrize(
    ("damage", "word", "named"),
    [
        ({"device": "another machine"}, "INCOMPARABLE", "another machine"),
        ({"schema": 0}, "INCOMPARABLE", "schema 0"),
        ({"versions": {"torch": "0.1"}}, "PASS", "torch: baseline 0.1, now"),
    ],
)
def test_another_device_or_schema_is_incomparable_and_other_versions_are_named(
    recorded, run_gate, damage, word, named
):
    recorded.write_text(json.dumps({**json.loads(recorded.read_text()), **damage}))
    status, output, failures = run_gate("--benchmark-compare")
    assert status == (0 if word == "PASS" else 1)
    assert f"2 {word}" in output
    assert named in output
    assert all(named in message for message in failures.values() if message)


def test_a_truncated_baseline_stops_the_run(recorded, run_gate):
    recorded.write_text(recorded.read_text()[:80])
    status, output, _ = run_gate("--benchmark-compare")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "not complete JSON" in output


@pytest.mark.parametrize(
    ("arguments", "marker"),
    [(("--collect-only",), "cpu"), (("-k", "nothing"), "cpu"), ((), "gpu")],
    ids=["collected only", "nothing by name", "nothing by marker"],
)
def test_a_run_that_measures_nothing_is_not_green(recorded, run_gate, arguments, marker):
    status, output, failures = run_gate(*arguments, "--benchmark-compare", marker=marker)
    assert status != 0
    assert "gate NOT GREEN" in output
    assert all("NOT MEASURED" in message for message in failures.values())
    assert marker == "cpu" or "no benchmark was selected" in output


def test_an_expected_failure_does_not_turn_a_regression_green(recorded, run_gate, suite, pytester):
    suite(work=8)
    test = pytester.path / "test_timed.py"
    test.write_text(test.read_text().replace("@pytest.mark.cpu", "@pytest.mark.xfail\n@pytest.mark.cpu"))
    status, output, _ = run_gate("--benchmark-compare")
    assert status == 1
    assert "NOT GREEN: 2 REGRESSED" in output


def test_a_named_baseline_is_used_and_never_written(recorded, run_gate, suite, pytester):
    elsewhere = recorded.rename(pytester.path / "mine.json")
    before = elsewhere.read_text()
    suite(work=1)
    assert run_gate("--benchmark-compare")[0] == 1
    assert run_gate(f"--benchmark-compare={elsewhere}", "--benchmark-autosave")[0] == 0
    assert elsewhere.read_text() == before


def test_the_verdicts_reach_the_step_summary_and_the_report(recorded, run_gate, pytester, monkeypatch):
    before, summary = recorded.read_text(), pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run_gate("--gate-report", "gate-report", "--benchmark-autosave", "--benchmark-compare")
    markdown = (pytester.path / "gate-report" / "report.md").read_text()
    assert "| PASS" in summary.read_text()
    assert "| PASS" in markdown.split("\n\n")[1]
    content = json.loads((pytester.path / "gate-report" / "report.json").read_text())
    assert all(len(each["seconds"]) > 1 and each["spread"] >= 0 for each in content["benchmarks"])
    assert [verdict for verdict, _ in content["verdicts"].values()] == ["PASS", "PASS"]
    assert recorded.read_text() == before


SHOWING = """
from xenc.gate.report import PICTURES, Table, show_first

pytest_plugins = ("xenc.gate",)

def draw(path, records, caption):
    path.write_text(f"{len(records)} on {caption}")
    return True

def pytest_configure():
    first = lambda record: "first" in record.name
    show_first([Table(title="sums", takes=first, row=lambda record: {"sum": record.label})])
    PICTURES.update({"sums.txt": draw, "none.txt": lambda *_: False})
"""


def test_a_suites_own_tables_and_pictures_are_shown(suite, run_gate, pytester, monkeypatch):
    monkeypatch.setattr(report, "TABLES", report.TABLES[-1:])
    monkeypatch.setattr(publish, "PICTURES", {})
    monkeypatch.setattr(report, "PICTURES", publish.PICTURES)
    pytester.makeconftest(SHOWING)
    status, output, _ = run_gate("--gate-report", "out", "--benchmark-quiet")
    assert status == 0
    own, generic = output.index("= sums ="), output.index("= timings =")
    assert own < output.index("| test_sum[first] |") < generic < output.index("| test_sum[second] |")
    written = pytester.path / "out"
    assert {path.name for path in written.iterdir()} == {"report.md", "report.json", "sums.txt"}
    assert (written / "sums.txt").read_text().startswith("2 on device ")
    title, *tables = (written / "report.md").read_text().strip().split("\n\n")
    assert title.startswith("# Benchmarks on device ")
    assert len(tables) == 2
    assert all(table in output for table in tables)
    assert str(written.relative_to(pytester.path) / "sums.txt") in output
    assert "none.txt" not in output
