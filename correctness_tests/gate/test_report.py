"""Tables, files and the picture of a run."""

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
        "workload": "seed", "reference": "eager", "configuration": configuration, "pairs_per_round": 10,
        "round_tokens": [100] * len(seconds), **info,
    }  # fmt: skip
    return Record(name=f"t.py::test[{configuration}]", device="cpu", seconds=tuple(seconds), info=described)


FAST = {"reference_seconds": [2.0, 1.5, 9.0], "waste": 0.05, "graphs": 1, "recompiles": 0, "pairs_per_s": 10}


@pytest.fixture
def records():
    return [
        record("eager", [2.0, 4.0, 6.0], waste=0.25, graphs=0, recompiles=0, pairs_per_s=2.5),
        record("fast", [1.0, 1.0, 3.0], **FAST),
        record("eager", [9.0, 9.0, 9.0], workload="other"),
    ]


def test_the_table_shows_every_column_the_median_speed_up_and_flags_a_wide_spread(records):
    assert [speedup(each) for each in records[:2]] == [None, 2]
    header, _, eager, fast, _ = run_table(records).splitlines()
    for column in ("configuration", "pairs/s", "tokens/s", "waste", "vs eager", "graphs", "recompiles"):
        assert column in header
    assert "25.0%" in eager
    assert "2.00x" in fast
    assert "x |" not in eager
    assert "(!)" in fast
    assert record("x", [1.0, 2.0, 3.0], round_tokens=[10, 20, 30]).spread == 0


WHEN = {"chapter": "layout", "when": "always"}
NOT_INSTALLED = "not installed: pip install it"


@pytest.mark.parametrize(
    ("technique", "shown"),
    [
        (
            record(
                "fast", [1.0, 1.0, 3.0], **FAST, **WHEN, output_error=2e-7, warmup_s=1.25, kendall_tau=1.0
            ),
            ("fast", "2.00x", "eager", "1.2", "2e-07", "1.0000", "always"),
        ),
        (record("absent", [], not_measured=NOT_INSTALLED, **WHEN), (f"| {NOT_INSTALLED} |",)),
        (record("int8", [1.0], not_ranked=NOT_INSTALLED, **WHEN), (f"| {NOT_INSTALLED} |",)),
        (
            record("int8", [1.0], output_error=2.0, ranked_error=0.125, ndcg=0.9, ndcg_loss=-0.01, **WHEN),
            ("| 0.1 ", "0.900 (+0.010)"),
        ),
    ],
    ids=["measured", "not measured", "not ranked", "the error of the ranked model"],
)
def test_a_technique_has_a_row_in_its_own_table(technique, shown):
    header, _, row = technique_table([technique, record("eager", [2.0])]).splitlines()
    assert "speed-up" in header
    assert all(text in row for text in shown)
    assert run_table([technique]) == ""


def test_rows_align_and_pipes_are_escaped():
    lines = markdown_table([{"a": "x|y", "b": "1"}, {"a": "z", "b": "22"}]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "x\\|y" in lines[2]


def test_a_benchmark_without_configuration_is_a_stage():
    stage = Record(name="t.py::test_sort", device="cpu", seconds=(0.001, 0.001), info={})
    assert "test_sort" in stage_table([stage])
    assert run_table([stage]) == ""


def under_load(**info):
    seen = {
        "server": "packed", "clients": 8, "offered_share": 1.3, "offered_pairs_per_s": 130.0,
        "answered_pairs_per_s": 99.5, "requests": 70, "p50_s": 0.1, "p90_s": 0.25, "p99_s": 2.0,
        "refused": 3, "behind_s": 0.5, "recompiles": 0, **info,
    }  # fmt: skip
    return Record(name="t.py::test_load[packed]", device="cpu", seconds=(7.0,), info=seen)


def test_a_service_under_load_has_a_row_in_its_own_table(records):
    served = under_load()
    header, _, row = load_table([*records, served]).splitlines()
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    cells = dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
    assert cells["offered"] == "1.3x, 130 pairs/s"
    shown = [cells[name] for name in ("p50 ms", "p99 ms", "refused", "behind s")]
    assert shown == ["100", "2,000", "3", "0.5"]
    assert run_table([served]) == stage_table([served]) == load_table(records) == ""
    assert "traced" in load_table([under_load(traced=True)])
    assert "too few requests" in load_table([under_load(p99_s=None)])
    assert "too few requests" not in load_table([served])


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
