"""Tables and files: what a reader is told."""

from __future__ import annotations

import json

import pytest

from xenc.gate.picture import draw
from xenc.gate.report import (
    Record,
    load_table,
    markdown_table,
    run_table,
    speedup,
    stage_table,
    technique_table,
    write_report,
)
from xenc.gate.verdict import Judgement, Verdict


def record(configuration, seconds, **info):
    described = {
        "workload": "seed",
        "reference": "eager",
        "configuration": configuration,
        "pairs_per_round": 10,
        "round_tokens": [100] * len(seconds),
        **info,
    }
    return Record(name=f"t.py::test[{configuration}]", device="cpu", seconds=tuple(seconds), info=described)


@pytest.fixture
def records():
    return [
        record("eager", [2.0, 4.0, 6.0], waste=0.25, graphs=0, recompiles=0, pairs_per_s=2.5),
        record(
            "fast",
            [1.0, 1.0, 3.0],
            reference_seconds=[2.0, 1.5, 9.0],
            waste=0.05,
            graphs=1,
            recompiles=0,
            pairs_per_s=10.0,
        ),
        record("eager", [9.0, 9.0, 9.0], workload="other"),
    ]


def test_speed_up_is_the_median_ratio_to_the_reference_round_by_round(records):
    assert speedup(records[1]) == 2
    assert speedup(records[0]) is None


def test_the_table_shows_every_column_and_flags_a_wide_spread(records):
    table = run_table(records)
    header, _, eager, fast, _ = table.splitlines()
    for column in ("configuration", "pairs/s", "tokens/s", "waste", "vs eager", "graphs", "recompiles"):
        assert column in header
    assert "25.0%" in eager
    assert "2.00x" in fast
    assert "x |" not in eager
    assert "(!)" in fast


def test_a_technique_has_a_row_of_its_own_table_and_one_that_cannot_run_says_why():
    described = {"chapter": "layout", "when": "always", "warmup_s": 1.25, "kendall_tau": 1.0}
    fast = record("fast", [1.0, 1.0, 3.0], reference_seconds=[2.0, 1.5, 9.0], output_error=2e-7, **described)
    absent = record("absent", [], not_measured="not installed: pip install it", chapter="layout", when="no")
    table = technique_table([fast, absent, record("eager", [2.0])])
    header, _, *rows = table.splitlines()
    assert "speed-up" in header
    assert len(rows) == 2
    for shown in ("fast", "2.00x", "eager", "1.2", "2e-07", "1.0000", "always"):
        assert shown in rows[0]
    assert "not installed: pip install it" in rows[1]
    assert run_table([fast, absent]) == ""


def test_a_technique_whose_ranking_cannot_be_judged_says_why():
    row = record(
        "int8", [1.0], chapter="precision", when="always", not_ranked="not installed: pip install it"
    )
    assert "| not installed: pip install it |" in technique_table([row])


def test_the_error_shown_is_of_the_model_whose_ranking_is_judged():
    described = {"chapter": "precision", "when": "always", "output_error": 2.0}
    judged = record("int8", [1.0], ranked_error=0.125, ndcg=0.9, ndcg_loss=-0.01, **described)
    table = technique_table([judged])
    assert "| 0.1 " in table
    assert "0.900 (+0.010)" in table


def test_unequal_rounds_are_not_noise():
    assert record("x", [1.0, 2.0, 3.0], round_tokens=[10, 20, 30]).spread == 0


def test_rows_align_and_pipes_are_escaped():
    lines = markdown_table([{"a": "x|y", "b": "1"}, {"a": "z", "b": "22"}]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "x\\|y" in lines[2]


def test_a_benchmark_without_configuration_is_a_stage():
    stage = Record(name="t.py::test_sort", device="cpu", seconds=(0.001, 0.001), info={})
    assert "test_sort" in stage_table([stage])
    assert run_table([stage]) == ""


def under_load(server: str, **info) -> Record:
    seen = {"offered_share": 1.3, "offered_pairs_per_s": 130.0, "answered_pairs_per_s": 99.5, "requests": 70}
    seen |= {
        "p50_s": 0.1,
        "p90_s": 0.25,
        "p99_s": 2.0,
        "refused": 3,
        "behind_s": 0.5,
        "recompiles": 0,
        **info,
    }
    info = {"server": server, "clients": 8, **seen}
    return Record(name=f"t.py::test_load[{server}]", device="cpu", seconds=(7.0,), info=info)


def test_a_service_under_load_has_a_table_of_its_own(records):
    served = under_load("packed")
    header, _, row = load_table([*records, served]).splitlines()
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    cells = dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
    assert cells["offered"] == "1.3x, 130 pairs/s"
    assert (cells["p50 ms"], cells["p99 ms"], cells["refused"], cells["behind s"]) == (
        "100", "2,000", "3", "0.5",
    )  # fmt: skip
    assert run_table([served]) == stage_table([served]) == load_table(records) == ""
    assert "traced" in load_table([under_load("packed", traced=True)])


def test_the_report_holds_samples_and_verdicts(tmp_path, records):
    judged = {records[1].name: Judgement(verdict=Verdict.REGRESSED, reason="10% slower")}
    written = write_report(tmp_path / "report", records, {"device": "a CPU"}, judged)
    assert {path.name for path in written} == {"report.md", "report.json"}
    assert "REGRESSED" in written[0].read_text()
    content = json.loads(written[1].read_text())
    assert content["benchmarks"][1]["seconds"] == [1.0, 1.0, 3.0]
    assert content["benchmarks"][1]["speedup"] == 2


def test_the_picture_is_a_png_and_needs_something_to_show(tmp_path, records):
    pytest.importorskip("matplotlib")
    assert draw(tmp_path / "run.png", records, "a CPU")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert not draw(tmp_path / "none.png", [], "a CPU")
