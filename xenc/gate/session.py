"""One run of the gate: which baseline each benchmark is judged by, and what came of it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, Literal

import torch

from ..errors import BaselineError
from .baseline import Baseline, SchemaError, baseline_path, read_baseline, write_baseline
from .machine import device_name, versions
from .report import Record
from .verdict import Judgement, Samples, Verdict, judge

DEFAULT_MARGINS: Final = {"cpu": 0.15, "cuda": 0.05}
"""Slowdown that a new baseline entry tolerates: what separate sessions of one machine differ by."""

PROTOCOL: Final = ("workload_fingerprint", "model", "dtype")
"""What of a benchmark's `extra_info` must equal the baseline's."""

NOTHING: Final = "gate::nothing-measured"


class GateSession:
    """State of one pytest run.

    Args:
        directory: where baselines live.
        compare: None not to judge, True to judge by this device's baseline, or the path of one.
        record: whether to store this run as the baseline.

    Raises:
        BaselineError: the baseline named by `compare`, or this machine's, cannot be read.
    """

    def __init__(self, directory: Path, *, compare: Literal[True] | str | None, record: bool) -> None:
        self.directory = directory
        self.comparing = compare is not None
        self.recording = record
        self.records: list[Record] = []
        self.judged: dict[str, Judgement] = {}
        self.messages: list[str] = []
        self._selected: set[str] = set()
        self._deselected: set[str] = set()
        self._unreadable: dict[str, str] = {}
        self._paths = {
            device: Path(compare) if isinstance(compare, str) else baseline_path(directory, name)
            for device, name in devices().items()
        }
        self._baselines = {device: self._read(path, device) for device, path in self._paths.items()}

    def expect(self, selected: Mapping[str, str], deselected: set[str]) -> dict[str, Judgement]:
        """Verdicts of what the baselines hold and the run will not measure.

        Args:
            selected: device of each benchmark that will run, by node id.
            deselected: node ids left out by -m, -k or --deselect.
        """
        self._selected, self._deselected = set(selected), deselected
        if not self.comparing:
            return {}
        if not selected:
            reason = "no benchmark was selected; is the marker right (-m cpu, -m gpu)?"
            return {NOTHING: Judgement(verdict=Verdict.NOT_MEASURED, reason=reason)}
        absent = {}
        for device in set(selected.values()):
            baseline = self._baselines.get(device)
            for name in baseline.entries if baseline is not None else ():
                if name in deselected:
                    reason = "the baseline has it and this run left it out; a partial run is no gate"
                    absent[name] = Judgement(verdict=Verdict.NOT_MEASURED, reason=reason)
                elif name not in selected:
                    reason = "the baseline has it and no test does: renamed or removed? Record a new baseline"
                    absent[name] = Judgement(verdict=Verdict.MISSING, reason=reason)
        return absent

    def judge(self, record: Record, broken: list[str]) -> Judgement | None:
        """The verdict on one benchmark that ran; None if this run does not compare."""
        if not self.comparing:
            return None
        judgement = self._verdict(record)
        if broken:
            judgement = Judgement(verdict=Verdict.REGRESSED, reason="; ".join(broken))
        self.judged[record.name] = judgement
        return judgement

    @property
    def green(self) -> bool:
        """Whether everything selected was judged, something was, and all of it is green."""
        everything = bool(self._selected) and self._selected <= set(self.judged)
        return everything and all(judgement.verdict.green for judgement in self.judged.values())

    def summary(self) -> str:
        """The gate's last line."""
        tally: dict[str, int] = {}
        for judgement in self.judged.values():
            tally[judgement.verdict] = tally.get(judgement.verdict, 0) + 1
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tally.items()))
        return f"gate {'GREEN' if self.green else 'NOT GREEN'}: {counts or 'nothing was measured'}"

    def store(self, *, passed: bool, commit: str) -> bool:
        """Write the baseline of each device measured, if every test passed and none was left out.

        Returns:
            Whether everything that was measured is stored now.
        """
        refusal = self._refusal(passed=passed)
        if refusal is not None:
            self.messages.append(f"baseline NOT recorded: {refusal}")
            return False
        for device in sorted({record.device for record in self.records}):
            entries = {record.name: _samples(record) for record in self.records if record.device == device}
            baseline = Baseline(device=devices()[device], versions=versions(), commit=commit, entries=entries)
            write_baseline(self._paths[device], baseline)
            self.messages.append(f"recorded {len(entries)} benchmarks in {self._paths[device]}")
        return True

    def _refusal(self, *, passed: bool) -> str | None:
        measured = {record.name for record in self.records if record.seconds}
        if not measured:
            return "nothing was measured"
        if not passed:
            return "a test failed"
        stored = [self._baselines.get(device) for device in {record.device for record in self.records}]
        known = {name for baseline in stored if baseline is not None for name in baseline.entries}
        left_out = sorted((self._selected - measured) | (known & self._deselected))
        return f"the run left out {', '.join(left_out)}" if left_out else None

    def _verdict(self, record: Record) -> Judgement:
        baseline = self._baselines.get(record.device)
        if record.device in self._unreadable:
            return Judgement(verdict=Verdict.INCOMPARABLE, reason=self._unreadable[record.device])
        if not record.seconds:
            return Judgement(verdict=Verdict.NOT_MEASURED, reason="benchmarks are disabled")
        if baseline is None:
            reason = f"this device has no baseline ({self._paths[record.device]}); record one"
            return Judgement(verdict=Verdict.NEW, reason=reason)
        if baseline.device != devices()[record.device]:
            reason = f"the baseline is of {baseline.device}, this is {devices()[record.device]}"
            return Judgement(verdict=Verdict.INCOMPARABLE, reason=reason)
        return judge(
            _samples(record), baseline.entries.get(record.name),
            head_versions=versions(), base_versions=baseline.versions,
        )  # fmt: skip

    def _read(self, path: Path, device: str) -> Baseline | None:
        """A damaged baseline stops a comparison, and not the recording of a new one."""
        if not path.exists():
            return None
        try:
            return read_baseline(path)
        except SchemaError as error:
            self._unreadable[device] = str(error)
        except BaselineError:
            if self.comparing:
                raise
        return None


@cache
def devices() -> dict[str, str]:
    """The names of the devices at hand, by torch's name for their type."""
    present = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return {device: device_name(device) for device in present}


def commit_of(directory: Path) -> str:
    """The checked-out revision, with "+dirty" if files differ from it; "unknown" outside git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+dirty", "--exclude=*"],
            cwd=directory, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _samples(record: Record) -> Samples:
    protocol = {name: str(record.info[name]) for name in PROTOCOL if name in record.info}
    margin = record.info.get("margin", DEFAULT_MARGINS[record.device])
    return Samples(seconds=record.seconds, protocol=protocol, margin=float(margin))
