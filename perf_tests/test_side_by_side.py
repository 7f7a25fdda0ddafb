"""The table of `make bench`: xenc and its alternatives, in turns on the same texts.

The first test of a workload times all its rows; each test then reports one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from perf_tests.configurations import REFERENCE
from perf_tests.cpu.results import Found
from perf_tests.cpu.rows import CASE, case_row
from perf_tests.cpu.run import Run
from perf_tests.cpu.setting import CASE_WORKLOADS, Setting
from perf_tests.progress import NAME
from perf_tests.rates import identity, rates
from perf_tests.workloads import Workload
from xenc.gate.measuring.replayed_clock import ReplayedClock

CLOCK = ReplayedClock()

SETTING = Setting(workloads=CASE_WORKLOADS, rounds=5, trials=1, primed_on=4, looked_into="")

PARAMETERS = [
    pytest.param(workload, name, id=f"{workload.name}-{name}") for workload in CASE_WORKLOADS for name in CASE
]

TimeAll = Callable[[Workload], Found]


@pytest.fixture(scope="module")
def time_all(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TimeAll:
    """Times the rows of a workload that this session runs, once."""
    wanted = {item.callspec.params["name"] for item in request.session.items if item.fspath == request.fspath}
    rows = [case_row(name, SETTING.fastest) for name in CASE if name in wanted]
    progress: Any = request.config.pluginmanager.get_plugin(NAME)
    tell = None if progress is None else progress.note
    run = Run(SETTING, rows, tmp_path_factory.mktemp("in-turns"), tell)

    @cache
    def found(name: str) -> Found:
        run.workload(next(workload for workload in CASE_WORKLOADS if workload.name == name))
        return run.results.workloads[name]

    return lambda workload: found(workload.name)


@pytest.mark.cpu
@pytest.mark.side_by_side
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # of a row that is absent
@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize(("workload", "name"), PARAMETERS)
def test_in_turns(benchmark: Any, workload: Workload, name: str, time_all: TimeAll) -> None:
    found, row = time_all(workload), case_row(name, SETTING.fastest)
    timed = found.row(row.name)
    benchmark.extra_info.update(
        identity(row.name, workload, SETTING.checkpoint(), row.dtype),
        **rates(workload, SETTING.rounds_of(workload), timed.seconds, "cpu", row.dtype),
        system=row.name.removesuffix(f" {row.precision}"), precision=row.precision,
        batch_size=timed.batch_size,
    )  # fmt: skip
    if row.name in found.absent:
        benchmark.extra_info.update(not_measured=found.absent[row.name])
        return
    assert timed.problem is None, timed.problem
    CLOCK.replay(benchmark, timed.seconds)
    plain = found.timed(case_row(REFERENCE, SETTING.fastest).name) if REFERENCE in CASE else None
    benchmark.extra_info.update(
        timed.counts, graphs=timed.graphs, warmup_s=timed.warmup_s, compile_findings=timed.finding,
        reference_seconds=[] if plain is None else plain.seconds, tau=timed.kendall_tau,
        largest_error=timed.largest_error,
    )  # fmt: skip
    if row.int8:  # the peak is of another precision
        benchmark.extra_info.pop("mfu", None)
    if timed.output_error is not None:
        benchmark.extra_info.update(output_error=timed.output_error, output_tolerance=timed.output_tolerance)
    if timed.waste is not None:
        benchmark.extra_info.update(waste=timed.waste)
