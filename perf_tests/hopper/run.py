"""One run of one stage: its setting, its rows, and how much of its time is left."""

from __future__ import annotations

from pathlib import Path

from perf_tests.hopper.fleet import Fleet, RemoteRow
from perf_tests.hopper.gate_at_once import GateAtOnce
from perf_tests.hopper.report import markdown
from perf_tests.hopper.results import Results
from perf_tests.hopper.rows import Row
from perf_tests.hopper.setting import Setting
from perf_tests.side_by_side.steps import Steps
from xenc.gate.measuring.machine import Machine


class Run(Steps):
    """One run in a setting, which begins nothing new after so many seconds; see `Steps`.

    Attributes:
        rows: of the table.
        fleet: the processes that hold them.
        ready: rows that are warmed up, by name.
        gate: if its processes have been started.
    """

    def __init__(self, setting: Setting, rows: tuple[Row, ...], out: Path, seconds: float) -> None:
        self.machine = Machine(setting.device)
        super().__init__(out, Results(rehearsal=setting.device == "cpu"), markdown, self.machine.facts)
        self.setting, self.rows, self.seconds = setting, rows, seconds
        self.fleet = Fleet(setting)
        self.ready: dict[str, RemoteRow] = {}
        self.gate: GateAtOnce | None = None

    @property
    def left(self) -> float:
        return self.seconds - self.elapsed

    def named(self, name: str) -> RemoteRow:
        """One of the rows that are ready.

        Raises:
            LookupError: it is not.
        """
        if name not in self.ready:
            raise LookupError(f"{name} is not ready")
        return self.ready[name]

    def settle(self, seconds: float) -> None:
        """Wait until the gate's processes are warm, so that the device is idle; end them if that fails."""
        if self.gate is not None:
            gate = self.gate
            if self.guarded("gate", lambda: gate.wait_ready(seconds)) is not None:
                self.gate = None

    def close(self) -> None:
        """End all processes."""
        self.fleet.close()
        if self.gate is not None:
            self.gate.close()
