"""The processes of a run, made ready at once and then asked one after the other."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Final

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

    def __init__(self, row: Row, connection: Connection) -> None:
        self.row, self.waste = row, None
        self._connection = connection

    def ask(self, what: str, *given: Any, seconds: float = MOST_SECONDS) -> Any:
        """The result of a method of `Worker` for this row.

        Raises:
            RuntimeError: it failed, or took longer.
        """
        self._connection.send((what, (self.row.name, *given)))
        return received(self._connection, seconds)

    def turn(self, timed: Timed, pairs: Sequence[Pair], primed_on: int) -> None:
        """One turn, added to the record."""
        once, self.waste = self.ask("turn", list(pairs), primed_on)
        timed.seconds += once.seconds
        timed.device_seconds += once.device_seconds
        timed.finding = once.finding or timed.finding
        for name, count in once.counts.items():
            timed.counts[name] = timed.counts.get(name, 0) + count


def received(connection: Connection, seconds: float) -> Any:
    """The next answer. Raises RuntimeError for an error, for silence, and for a process that died."""
    if not connection.poll(seconds):
        raise RuntimeError(f"no answer after {seconds:.0f} s")
    try:
        right, result = connection.recv()
    except EOFError as error:
        raise RuntimeError("the process died") from error
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
            seconds: after which rows that are not ready are given up, and processes without others ended.
            told: each row, as it comes.
        """
        waiting, end = groups(rows), time.monotonic() + seconds
        firsts = [group[0] for group in waiting]
        running: dict[Connection, list[Row]] = {}
        while (waiting or running) and time.monotonic() < end:
            while waiting and len(running) < at_once:
                group = waiting.pop(0)
                connection = self._started()
                running[connection] = group
                connection.send(("ready", (group[0].name,)))
            for connection in wait(list(running), timeout=0.2):
                assert isinstance(connection, Connection)
                rest = _one_more(connection, running.pop(connection), told)
                if rest:
                    running[connection] = rest
        for row in [row for group in (*running.values(), *waiting) for row in group]:
            told(row, None, f"not ready after {seconds:.0f} s")
        for connection, group in running.items():
            if group[0] in firsts:
                self._end(connection)

    def _started(self) -> Connection:
        ours, theirs = self._context.Pipe()
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = THREADS
        process = self._context.Process(target=serve, args=(theirs, self._rehearse))
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _end(self, connection: Connection) -> None:
        process = self._processes.pop(connection)
        process.kill()
        process.join(5)

    def close(self) -> None:
        """End all processes."""
        for connection in list(self._processes):
            self._end(connection)


def _one_more(connection: Connection, rows: list[Row], told: Told) -> list[Row]:
    """Take the answer of a process for its first row, and ask for the next; those that are left."""
    row, *rest = rows
    try:
        found = received(connection, 1.0)
    except RuntimeError as error:
        told(row, None, str(error))
    else:
        told(row, RemoteRow(row, connection), found)
    try:
        if rest:
            connection.send(("ready", (rest[0].name,)))
    except OSError:
        for lost in rest:
            told(lost, None, "the process died")
        return []
    return rest
