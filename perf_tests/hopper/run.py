"""One run of one stage: its setting, its rows, and how much of its time is left."""

from __future__ import annotations

from pathlib import Path

from perf_tests.hopper.contestants import Contestants
from perf_tests.hopper.report import markdown
from perf_tests.hopper.results import Results
from perf_tests.hopper.rows import Row
from perf_tests.hopper.setting import Setting
from perf_tests.side_by_side.contestant import Contestant
from perf_tests.side_by_side.steps import Steps
from xenc.gate.machine import Machine


class Run(Steps):
    """One run in a setting, which begins nothing new after so many seconds; see `Steps`.

    Attributes:
        rows: of the table.
        ready: those that are warmed up, by name.
    """

    def __init__(self, setting: Setting, rows: tuple[Row, ...], out: Path, seconds: float) -> None:
        self.machine = Machine(setting.device)
        super().__init__(out, Results(rehearsal=setting.device == "cpu"), markdown, self.machine.facts)
        self.setting, self.rows, self.seconds = setting, rows, seconds
        self.ready: dict[str, Contestant] = {}
        self._contestants = Contestants(setting)

    @property
    def left(self) -> float:
        return self.seconds - self.elapsed

    def contestant(self, row: Row) -> Contestant:
        """A row's contestant, made ready once."""
        if row.name not in self.ready:
            self.ready[row.name] = self._contestants.ready(row)
        return self.ready[row.name]

    def named(self, name: str) -> Contestant:
        """The contestant of one of `rows`.

        Raises:
            LookupError: there is no such row.
        """
        row = next((row for row in self.rows if row.name == name), None)
        if row is None:
            raise LookupError(f"{name} is no row of this stage")
        return self.contestant(row)
