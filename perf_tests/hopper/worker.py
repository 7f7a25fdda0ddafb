"""A process that holds the model of some rows, and does with it what it is asked.

Warming up a compiled model is half a minute of one thread. So rows that share no graphs are made ready in
processes of their own, all at once. Later they work one after the other: a process that is not asked waits.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from correctness_tests import oracle
from perf_tests.hopper.answers import check_answers, check_ranking, differing_scores
from perf_tests.hopper.contestants import Contestants
from perf_tests.hopper.one_by_one import equal_requests, random_requests
from perf_tests.hopper.rows import Row, table_rows
from perf_tests.hopper.setting import ON_GPU, REHEARSAL, Setting
from perf_tests.side_by_side.contestant import Contestant
from perf_tests.side_by_side.turns import Timed, one_turn
from perf_tests.workloads import Pair
from xenc.profiling.kernel_names import shares_by_class
from xenc.profiling.measure import profile_model
from xenc.profiling.report import markdown


def serve(connection: Connection, rehearse: bool) -> None:
    """Answer requests (method, arguments) by (True, result) or (False, error), while the parent lives."""
    worker = Worker(REHEARSAL if rehearse else ON_GPU)
    with suppress(EOFError):
        while True:
            method, arguments = connection.recv()
            try:
                connection.send((True, getattr(worker, method)(*arguments)))
            except Exception:
                traceback.print_exc()
                connection.send((False, traceback.format_exc()))
    os._exit(0)  # threads and graphs need not be waited for


class Worker:
    """What the process can do; rows are named, as they cross a pipe."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._contestants = setting, Contestants(setting)
        self._rows = {row.name: row for row in table_rows(setting)}
        self._ready: dict[str, Contestant] = {}

    def ready(self, name: str) -> Timed:
        """Make a row ready, and compare its answers with the oracle's."""
        row = self._rows[name]
        contestant = self._ready[name] = self._contestants.ready(row)
        timed = Timed(group=row.group, name=row.name, batch_size=row.batch_size)
        timed.warmup_s, timed.graphs = contestant.scorer.warmup_s, contestant.scorer.graphs
        pairs = self._setting.workload.round(0)
        check_answers(contestant, timed, pairs, self._setting)
        if row.quantize is not None:
            check_ranking(contestant, timed, pairs, self._setting)
        oracle._loaded.cache_clear()  # of its models each process would keep several
        return timed

    def turn(self, name: str, pairs: Sequence[Pair], primed_on: int) -> tuple[Timed, float | None]:
        """One turn: a record of it alone, and the waste."""
        contestant, row = self._ready[name], self._rows[name]
        timed = Timed(group=row.group, name=row.name, batch_size=row.batch_size)
        one_turn(contestant, timed, pairs, primed_on)
        return timed, contestant.waste

    def equal_requests(self, name: str, count: int) -> dict[str, Any]:
        """See `one_by_one`."""
        return equal_requests(self._ready[name], self._setting, count)

    def random_requests(self, name: str, seconds: float) -> dict[str, Any]:
        """See `one_by_one`."""
        return random_requests(self._ready[name], self._setting, seconds)

    def differing_scores(self, name: str, pairs: Sequence[Pair]) -> int:
        """See `answers`."""
        return differing_scores(self._ready[name], pairs)

    def profile(self, name: str, file: Path) -> dict[str, float]:
        """Where the time goes, written to a file; the shares of the device's time by class of kernel."""
        contestant = self._ready[name]
        contestant.take_over()
        pairs = self._setting.workload.round(0)
        found = profile_model(contestant.model, pairs, batch_size=contestant.row.batch_size, repeats=3)
        file.write_text(markdown(found), encoding="utf-8")
        return shares_by_class(found.traced.kernels)

    def compile_seconds(self, name: str) -> dict[str, float]:
        """Seconds of each step of compiling in this process, and what came from the caches."""
        from torch._dynamo.utils import compile_times, counters

        names, values = compile_times(repr="csv", aggregate=True)
        seconds = {key: float(value) for key, value in zip(names, values, strict=False) if float(value) > 0.1}
        caches = {key: float(count) for key, count in counters["inductor"].items() if "cache" in key}
        return seconds | caches | {key: float(n) for key, n in counters["aot_autograd"].items()}


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that share a process: those of one model, in the order of their turns."""
    found: dict[object, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.turn):
        found.setdefault(row.model_key, []).append(row)
    return list(found.values())
