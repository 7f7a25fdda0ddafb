"""Tables and pictures of the performance suite's own records."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from correctness_tests.markdown import rows_of
from perf_tests.conftest import pytest_configure
from perf_tests.pictures import draw, draw_requests
from perf_tests.tables import CASE_TITLE
from xenc.gate import report
from xenc.gate.report import Record, tables_of


@pytest.fixture(autouse=True)
def start(monkeypatch):
    """Starts the suite, once so far."""
    monkeypatch.setattr(report, "TABLES", report.TABLES[-1:])
    for shared in ("PICTURES", "FACTS"):
        monkeypatch.setattr(f"perf_tests.conftest.{shared}", {})
    manager = SimpleNamespace(get_plugin=lambda _: None)
    config = SimpleNamespace(pluginmanager=manager, getoption=lambda _: None)
    pytest_configure(config)
    return lambda: pytest_configure(config)


def record(configuration, seconds, **info):
    described = {
        "workload": "seed", "reference": "eager", "configuration": configuration, "pairs_per_round": 10,
        "round_sizes": [100] * len(seconds), **info,
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


def only_table(*records):
    ((title, table),) = tables_of(records).items()
    return title, rows_of(table)


def test_configurations_show_every_column_the_median_speed_up_and_flag_a_wide_spread(records):
    title, (eager, fast, other) = only_table(*records)
    assert title == "benchmarks"
    assert list(fast.items())[:8] == [
        ("workload", "seed"), ("configuration", "fast"), ("pairs/s", "10.0"), ("tokens/s", ""),
        ("waste", "5.0%"), ("vs eager", "2.00x"), ("graphs", "1"), ("recompiles", "0"),
    ]  # fmt: skip
    assert (eager["waste"], eager["vs eager"], other["workload"]) == ("25.0%", "", "other")
    assert fast["spread"].endswith("(!)")
    assert fast["MFU"] == fast["GEMM share"] == other["waste"] == ""


WHEN = {"chapter": "layout", "when": "always"}
NOT_INSTALLED = "not installed: pip install it"


@pytest.mark.parametrize(
    ("technique", "shown"),
    [
        (
            record(
                "fast", [1.0, 1.0, 3.0], **FAST, **WHEN, output_error=2e-7, warmup_s=1.25, kendall_tau=1.0
            ),
            {"technique": "fast", "speed-up": "2.00x", "over": "eager", "warm-up s": "1.2", "error": "2e-07",
             "Kendall tau": "1.0000", "when to use it": "always"},
        ),
        (record("absent", [], not_measured=NOT_INSTALLED, **WHEN), {"speed-up": NOT_INSTALLED}),
        (record("int8", [1.0], not_ranked=NOT_INSTALLED, **WHEN), {"nDCG@10": NOT_INSTALLED}),
        (
            record(
                "int8", [1.0], output_error=2.0, ranked_model="real", ranked_error=0.125, ndcg=0.9,
                ndcg_loss=-0.01, **WHEN,
            ),
            {"error": "0.1", "ranked by": "real", "nDCG@10": "0.900 (+0.010)"},
        ),
    ],
    ids=["measured", "not measured", "not ranked", "the error of the ranked model"],
)  # fmt: skip
def test_a_technique_has_a_row_in_its_own_table(technique, shown):
    title, (row,) = only_table(technique)
    assert title == "techniques"
    assert {name: row[name] for name in shown} == shown
    assert list(tables_of([technique, record("eager", [2.0])])) == ["benchmarks", "techniques"]


def under_load(**info):
    seen = {
        "server": "packed", "clients": 8, "offered_share": 1.3, "offered_pairs_per_s": 130.0,
        "answered_pairs_per_s": 99.5, "requests": 70, "p50_s": 0.1, "p90_s": 0.25, "p99_s": 2.0,
        "refused": 3, "behind_s": 0.5, "recompiles": 0, **info,
    }  # fmt: skip
    return Record(name="t.py::test_load[packed]", device="cpu", seconds=(7.0,), info=seen)


def test_a_service_under_load_has_a_row_in_its_own_table(records):
    title, (row,) = only_table(under_load())
    assert (title, row["server"], row["offered"]) == ("load", "packed", "1.3x, 130 pairs/s")
    assert [row[name] for name in ("p50 ms", "p99 ms", "refused", "behind s")] == ["100", "2,000", "3", "0.5"]
    _, (other,) = only_table(under_load(traced=True, p99_s=None))
    assert (other["server"], other["p99 ms"]) == ("packed (traced)", "too few requests")
    assert list(tables_of([under_load(), *records])) == ["benchmarks", "load"]


def test_a_stage_is_in_the_gates_own_table():
    stage = Record(name="t.py::test_sort", device="cpu", seconds=(0.001, 0.001), info={"margin": 0.4})
    title, (row,) = only_table(stage)
    assert (title, row["benchmark"], row["median ms"]) == ("timings", "test_sort", "1.00")


def test_what_ran_in_turns_has_rows_and_the_table_that_compares_them():
    info = {"system": "xenc packed", "precision": "float32", "model": "tiny", "batch_size": 8, "tau": 0.75}
    shown = tables_of([record("xenc packed float32", [1.0], pairs_per_s=10.0, **info)])
    assert list(shown) == ["benchmarks", CASE_TITLE]
    assert "| xenc packed float32 |" in shown["benchmarks"]
    assert "0.750" in shown[CASE_TITLE]


def test_starting_twice_shows_nothing_twice(start):
    start()
    titles = [table.title for table in report.TABLES]
    assert titles == ["benchmarks", "techniques", "load", CASE_TITLE, "timings"]


def test_pictures_are_pngs_and_need_something_to_show(tmp_path, records):
    pytest.importorskip("matplotlib")
    fitted = {"seconds_per_token": 0.01, "seconds_at_zero": 0.1, "correlation": 0.9}
    requests = Record(
        name="t.py::test_requests",
        device="cpu",
        seconds=(1.0, 2.1),
        info={"round_sizes": [90, 200], **fitted},
    )
    for name, make, shown in (("run", draw, records), ("requests", draw_requests, [requests])):
        assert make(tmp_path / f"{name}.png", shown, "a CPU")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert not make(tmp_path / "none.png", [under_load()], "a CPU")
    assert not (tmp_path / "none.png").exists()
