"""Tables and files of a run, of any suite."""

from __future__ import annotations

from dataclasses import replace

import pytest

from correctness_tests.markdown import rows_of
from xenc.gate import report
from xenc.gate.record import Record
from xenc.gate.report import Overview, Table, markdown_table, show_first, tables_of, verdict_chapter
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
    plain, fast, none = rows_of(tables_of([PLAIN, FAST, record("none", [])])["timings"])
    assert plain == {
        "benchmark": "test_sort[1]", "median ms": "2.00", "spread": "50.0% (!)", "n": "3", "speed-up": "",
        "recompiles": "", "graphs": "",
    }  # fmt: skip
    assert fast == plain | {
        "benchmark": "fast", "median ms": "1,000.00", "spread": "115.5% (!)", "speed-up": "2.00x over plain",
        "recompiles": "0", "graphs": "2",
    }  # fmt: skip
    assert none == dict.fromkeys(plain, "") | {"benchmark": "none", "n": "0"}


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        (record("test_it", [1.0] * 2, peak_bytes=1_234_567_890), {"peak MB": "1,234.6"}),
        (record("test_it", [1.0], kernels=6, exact={"kernels": 7}), {"kernels": "7"}),
        (record("test_it", [1.0], reference_seconds=[2.0]), {"speed-up": "2.00x"}),
        (record("test_it", [2e-6]), {"median ms": "0.002"}),
        (record("test_it", [1.0, 2.0, 3.0], round_sizes=[10, 20, 30]), {"spread": "0.0%"}),
    ],
)
def test_a_column_is_there_if_it_has_a_value_in_some_row(measured, shown):
    (row,) = rows_of(tables_of([measured])["timings"])
    assert set(row) == {"benchmark", "median ms", "spread", "n", *shown}
    assert {name: row[name] for name in shown} == shown


def test_a_record_is_in_the_first_table_that_takes_it_and_in_every_overview():
    def own(title):
        return Table(title=title, takes=lambda each: "own" in each.info, row=lambda each: {"who": each.label})

    count = Overview(title="all", markdown=lambda records: f"{len(records)} of them" if records else "")
    show_first([own("own"), count])
    show_first([again := own("own"), count, own("late")])
    assert report.TABLES[0] is again
    assert [table.title for table in report.TABLES] == ["own", "all", "late", "timings"]
    mine = record("test_mine", [1.0], own=1)
    shown = tables_of([PLAIN, mine])
    assert list(shown) == ["own", "all", "timings"]
    assert rows_of(shown["own"]) == [{"who": "test_mine"}]
    assert shown["all"] == "2 of them"
    assert [row["benchmark"] for row in rows_of(shown["timings"])] == ["test_sort[1]"]
    assert list(tables_of([mine])) == ["own", "all"]
    assert tables_of([]) == {}


def test_rows_align_and_pipes_and_line_ends_do_not_break_them():
    lines = markdown_table([{"a": "x|y", "b": "1\n2"}, {"a": "z", "b": "22"}]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2] == "| x\\|y | 1 2 |"


def test_a_verdict_has_a_row_with_its_reason_and_notes_name_the_tests_that_they_concern():
    slow = Judgement(
        verdict=Verdict.REGRESSED, reason="10%\nslower", exact=("kernels: 1 -> 2",),
        changed=("graphs: 2 -> 1",), causes=("kernel mm<4>",), findings=("recompiled:\n  a size",),
        notes=("beware",),
    )  # fmt: skip
    noisy = Judgement(verdict=Verdict.INCONCLUSIVE, reason="wide", notes=("beware", "look"))
    good = Judgement(verdict=Verdict.IMPROVED, reason="fine", notes=("beware",))
    judged = {"perf/t.py::test_a": slow, **{f"t.py::{name}": noisy for name in "bcde"}, "t.py::f": good}
    table, notes = verdict_chapter(judged).split("\n\n")
    first, *_, last = rows_of(table)
    assert first == {"verdict": "**REGRESSED**", "benchmark": "test_a", "reason": "10% slower"}
    assert last == {"verdict": "IMPROVED", "benchmark": "f", "reason": "fine"}
    assert notes.splitlines() == [
        "- test_a: `kernel mm<4>`", "- test_a: graphs: 2 -> 1", "- test_a: recompiled: a size",
        "- all: beware", "- b, c, d, 1 more: look",
        "- To keep the improvement, record a new baseline (`--gate-record`) and commit it.",
        "- INCONCLUSIVE is too noisy to decide: repeat on a quieter machine.",
    ]  # fmt: skip
    assert verdict_chapter({"f": replace(good, verdict=Verdict.PASS, notes=())}).count("\n") == 2
    assert verdict_chapter({}) == ""


def test_facts_of_a_machine_are_one_line():
    facts = {"load": 0.51234567, "cpu_seconds": {"own": 2.5, "stolen": 0.1}, "clocks": [1700, 1980],
             "sdpa": ["flash", "math"], "throttled_by": [], "unheard_of": None}  # fmt: skip
    assert report.facts_line(facts) == (
        "load 0.512346, cpu_seconds (own 2.5, stolen 0.1), clocks 1700 to 1980, sdpa flash, math, "
        "throttled_by none, unheard_of None"
    )
