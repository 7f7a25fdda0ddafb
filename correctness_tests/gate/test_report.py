"""Tables and files of a run, of any suite."""

from __future__ import annotations

import json

import pytest

from correctness_tests.markdown import rows_of
from xenc.gate import report
from xenc.gate.report import (
    Overview,
    Record,
    Table,
    markdown_table,
    show_first,
    speedup,
    tables_of,
    verdict_table,
    write_report,
)
from xenc.gate.verdict import Judgement, Verdict


def record(name, seconds, **info):
    return Record(name=f"t.py::{name}", device="cpu", seconds=tuple(seconds), info=info)


PLAIN = record("test_sort[1]", [0.001, 0.002, 0.003])
FAST = record(
    "test_fast", [1.0, 1.0, 3.0], reference_seconds=[2.0, 1.5, 9.0], reference="plain", label="fast",
    recompiles=0, graphs=2, kernels=None,
)  # fmt: skip


@pytest.fixture(autouse=True)
def only_the_gates_own(monkeypatch):
    monkeypatch.setattr(report, "TABLES", report.TABLES[-1:])


def test_any_benchmark_has_a_row_of_what_was_measured_of_it():
    plain, fast = rows_of(tables_of([PLAIN, FAST])["timings"])
    assert plain == {
        "benchmark": "test_sort[1]", "median ms": "2.00", "spread": "50.0% (!)", "n": "3", "speed-up": "",
        "recompiles": "", "graphs": "",
    }  # fmt: skip
    assert fast == plain | {
        "benchmark": "fast", "median ms": "1,000.00", "spread": "115.5% (!)", "speed-up": "2.00x over plain",
        "recompiles": "0", "graphs": "2",
    }  # fmt: skip
    assert speedup(PLAIN) is None


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        (
            record("test_it", [1.0, 1.0], peak_bytes=1_234_567_890, kernels=7),
            {"kernels": "7", "peak MB": "1,234.6"},
        ),
        (record("test_it", [1.0], exact={"kernels": 7, "graphs": 1}), {"kernels": "7", "graphs": "1"}),
        (record("test_it", [1.0], reference_seconds=[2.0]), {"speed-up": "2.00x"}),
        (record("test_it", [2e-6]), {"median ms": "0.002"}),
        (record("test_it", [1.0, 2.0, 3.0], round_sizes=[10, 20, 30]), {"spread": "0.0%"}),
    ],
    ids=[
        "kernels and memory",
        "exact",
        "a reference without a name",
        "microseconds",
        "rounds of unequal size",
    ],
)
def test_a_column_is_there_if_it_has_a_value_in_some_row(measured, shown):
    (row,) = rows_of(tables_of([measured])["timings"])
    assert set(row) == {"benchmark", "median ms", "spread", "n", *shown}
    assert {name: row[name] for name in shown} == shown


def test_a_benchmark_that_took_no_time_has_a_row_too():
    assert rows_of(tables_of([record("test_it", [])])["timings"]) == [{"benchmark": "test_it", "n": "0"}]


OWN = Table(
    title="own", takes=lambda each: "own" in each.info, row=lambda each: {"who": each.label, "more": ""}
)
ALL = Overview(title="all", markdown=lambda records: f"{len(records)} of them" if records else "")


def test_a_record_is_in_the_first_table_that_takes_it_and_in_every_overview():
    late = Table(title="late", takes=OWN.takes, row=OWN.row)
    show_first([OWN, ALL, late])
    mine = record("test_mine", [1.0], own=1)
    shown = tables_of([PLAIN, mine])
    assert list(shown) == ["own", "all", "timings"]
    assert rows_of(shown["own"]) == [{"who": "test_mine", "more": ""}]
    assert shown["all"] == "2 of them"
    assert [row["benchmark"] for row in rows_of(shown["timings"])] == ["test_sort[1]"]
    assert list(tables_of([mine])) == ["own", "all"]
    assert tables_of([]) == {}


def test_tables_shown_first_twice_are_there_once():
    show_first([OWN, ALL])
    again = Table(title="own", takes=OWN.takes, row=OWN.row)
    show_first([again, ALL])
    assert [table.title for table in report.TABLES] == ["own", "all", "timings"]
    assert report.TABLES[0] is again


def test_rows_align_and_pipes_are_escaped():
    lines = markdown_table([{"a": "x|y", "b": "1"}, {"a": "z", "b": "22"}]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "x\\|y" in lines[2]


def test_a_verdict_has_a_row_with_its_grounds_in_one_line_and_all_that_is_known():
    judgement = Judgement(
        verdict=Verdict.REGRESSED, reason="10% slower", exact=("kernels: 1 -> 2",),
        changed=("graphs: 2 -> 1",), causes=("stage a: 1 ms -> 2 ms",),
        findings=("recompiled:\n  a size",), notes=("beware",),
    )  # fmt: skip
    assert rows_of(verdict_table({"perf/t.py::test_a": judgement})) == [{
        "verdict": "REGRESSED", "benchmark": "t.py::test_a",
        "reason": "10% slower; stage a: 1 ms -> 2 ms; graphs: 2 -> 1; recompiled: a size; beware",
    }]  # fmt: skip
    assert verdict_table({}) == ""


def test_the_report_holds_samples_tables_and_verdicts(tmp_path):
    judged = {FAST.name: Judgement(verdict=Verdict.REGRESSED, reason="10% slower")}
    written = write_report(tmp_path / "report", [PLAIN, FAST], {"device": "a CPU", "torch": "2"}, judged)
    assert {path.name for path in written} == {"report.md", "report.json"}
    title, table, verdicts = written[0].read_text().split("\n\n")
    assert title == "# Benchmarks on device a CPU, torch 2"
    assert table == tables_of([PLAIN, FAST])["timings"]
    assert "REGRESSED" in verdicts
    content = json.loads(written[1].read_text())
    assert content["benchmarks"][1]["seconds"] == [1.0, 1.0, 3.0]
    assert content["benchmarks"][1]["speedup"] == 2
