"""The processes of a run, made ready at once and then asked one after the other."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Final
from unittest import mock

from perf_tests.hopper.children import THREADS
from perf_tests.hopper.rows import Row
from perf_tests.hopper.setting import Setting
from perf_tests.hopper.worker import groups, serve
from perf_tests.side_by_side.turns import Timed
from perf_tests.workloads import Pair

MOST_SECONDS: Final = 120.0
"""That one answer may take once rows are ready."""


class RemoteRow:
    """A row that is ready in a process.

    Attributes:
        row: the row.
        waste: of its last turn.
    """

    def __init__(self, row: Row, connection: Connection, end: Callable[[], object]) -> None:
        self.row, self.waste = row, None
        self._connection, self._end = connection, end

    def ask(self, what: str, *given: Any, seconds: float = MOST_SECONDS) -> Any:
        """The result of a method of `Worker` for this row.

        Raises:
            RuntimeError: it failed, or its process has ended; one that takes longer is ended.
        """
        try:
            self._connection.send((what, (self.row.name, *given)))
            answered = self._connection.poll(seconds)
        except OSError as error:
            raise RuntimeError("its process has ended") from error
        if not answered:
            self._end()  # or the next question would get this one's answer
            raise RuntimeError(f"no answer after {seconds:.0f} s")
        return received(self._connection)

    def turn(self, timed: Timed, pairs: Sequence[Pair], primed_on: int) -> None:
        """One turn, added to the record."""
        once, self.waste = self.ask("turn", list(pairs), primed_on)
        timed.seconds += once.seconds
        timed.device_seconds += once.device_seconds
        timed.finding = once.finding or timed.finding
        for name, count in once.counts.items():
            timed.counts[name] = timed.counts.get(name, 0) + count


def received(connection: Connection) -> Any:
    """The next answer. Raises RuntimeError for an error, and for a process that has ended."""
    try:
        right, result = connection.recv()
    except (EOFError, OSError) as error:
        raise RuntimeError("its process has ended") from error
    if not right:
        raise RuntimeError(str(result).rstrip().splitlines()[-1]) from RuntimeError(result)
    return result


Told = Callable[[Row, RemoteRow | None, Timed | str], object]
"""Takes a row with its process and record; or without, and with what went wrong."""


class Fleet:
    """Processes for rows; `close` ends them all."""

    def __init__(self, setting: Setting) -> None:
        self._rehearse = setting.device == "cpu"
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, Any] = {}

    def make_ready(self, rows: Sequence[Row], at_once: int, seconds: float, told: Told) -> None:
        """Make rows ready, several models at once; stop after so many seconds.

        Args:
            rows: any.
            at_once: how many processes.
            seconds: after which rows that are not ready are given up, and with them their processes.
            told: each row, as it comes; again, if its process is ended.
        """
        waiting, end = groups(rows), time.monotonic() + seconds
        running: dict[Connection, list[Row]] = {}
        whole: dict[Connection, list[Row]] = {}
        while (waiting or running) and time.monotonic() < end:
            while waiting and len(running) < at_once:
                connection = self._started(waiting[0][0])
                running[connection] = whole[connection] = waiting.pop(0)
                _ask_for_first(connection, running, told)
            for answered in wait(list(running), timeout=0.2):
                assert isinstance(answered, Connection)
                self._note(answered, running, told)
        for group in waiting:
            _lost(group, f"not ready after {seconds:.0f} s", told)
        for connection in running:  # it would answer when something else is asked
            self._end(connection)
            _lost(whole[connection], f"not all rows of its model were ready after {seconds:.0f} s", told)

    def _note(self, connection: Connection, running: dict[Connection, list[Row]], told: Told) -> None:
        """Take the answer of a process for its first row, and ask for the next."""
        row = running[connection].pop(0)
        try:
            found = received(connection)
        except RuntimeError as error:
            told(row, None, str(error))
        else:
            told(row, RemoteRow(row, connection, partial(self._end, connection)), found)
        _ask_for_first(connection, running, told)

    def _started(self, row: Row) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._rehearse))
        threads = {} if row.is_autotuned else {"TORCHINDUCTOR_COMPILE_THREADS": THREADS}
        with mock.patch.dict(os.environ, threads):
            process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _end(self, connection: Connection) -> None:
        process = self._processes.pop(connection, None)
        if process is not None:
            process.kill()
            process.join(5)

    def close(self) -> None:
        """End all processes."""
        for connection in list(self._processes):
            self._end(connection)


def _ask_for_first(connection: Connection, running: dict[Connection, list[Row]], told: Told) -> None:
    """Ask a process for the first of its rows; a process without rows, or that has ended, runs no more."""
    rows = running[connection]
    try:
        if rows:
            connection.send(("ready", (rows[0].name,)))
    except OSError:
        _lost(rows, "its process has ended", told)
        rows = []
    if not rows:
        del running[connection]


def _lost(rows: Sequence[Row], why: str, told: Told) -> None:
    for row in rows:
        told(row, None, why)
