"""One run of the gate: the baselines, the verdict on each benchmark, and whether the run is green."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final, Literal

import torch

from ..errors import BaselineError
from .exact import changed_facts
from .machine import device_name, versions
from .report import Record
from .stored.baseline import Baseline, SchemaError, baseline_path, read_baseline
from .stored.entry import Samples, entry_of
from .stored.rule import judge
from .verdict import Judgement, Verdict

DEFAULT_MARGINS: Final = {"cpu": 0.15, "cuda": 0.05}
"""The margin of a new baseline entry, by device: about the drift between sessions on one machine."""

PROTOCOL: Final = ("workload_fingerprint", "model", "dtype")
"""Keys of a benchmark's `extra_info` whose values must equal the baseline's."""

EXACT: Final = {"graphs": "graphs", "kernels": "kernels", "peak_bytes": "peak_bytes", "waste": "padded_share"}
"""Keys of a benchmark's `extra_info` that a baseline stores besides times -> keys of `exact.FACTS`."""

NOTHING: Final = "gate::nothing-measured"


class GateSession:
    """The state of one pytest run.

    Args:
        directory: the folder of the baselines.
        compare: None to judge nothing, True to judge by this device's baseline, or the path of a baseline.
        record: whether this run is stored, as a baseline or as one session of it.

    Attributes:
        commit: the revision at the start of a run that is stored.
        paired: whether the run measures another revision too (--against); stored baselines are not used then.
        chapters: Markdown that is shown before the tables.
        failures: reasons why the run is not green, besides its verdicts.

    Raises:
        BaselineError: the run compares, and the baseline cannot be read.
    """

    def __init__(self, directory: Path, *, compare: Literal[True] | str | None, record: bool) -> None:
        self.directory = directory
        self.comparing = compare is not None
        self.recording = record
        self.commit = ""
        self.paired = False
        self.chapters: list[str] = []
        self.records: list[Record] = []
        self.judged: dict[str, Judgement] = {}
        self.messages: list[str] = []
        self.failures: list[str] = []
        self._selected: set[str] = set()
        self._deselected: set[str] = set()
        self._unreadable: dict[str, str] = {}
        self._paths = {
            device: Path(compare) if isinstance(compare, str) else baseline_path(directory, name)
            for device, name in devices().items()
        }
        self._baselines = {device: self._read(path, device) for device, path in self._paths.items()}

    def expect(self, selected: Mapping[str, str], deselected: set[str]) -> dict[str, Judgement]:
        """Verdicts on the benchmarks that the baselines have and the run will not measure, by node id.

        Args:
            selected: the device of each benchmark that will run, by node id.
            deselected: node ids left out by -m, -k or --deselect.
        """
        self._selected, self._deselected = set(selected), deselected
        if not self.comparing:
            return {}
        if not selected:
            reason = "no benchmark was selected; check the marker (-m cpu, -m gpu)"
            return {NOTHING: Judgement(verdict=Verdict.NOT_MEASURED, reason=reason)}
        if self.paired:
            return {}
        absent = {}
        for device in set(selected.values()):
            baseline = self._baselines.get(device)
            for name in baseline.entries if baseline is not None else ():
                if name in deselected:
                    reason = "it is in the baseline, but this run left it out; the gate needs a full run"
                    absent[name] = Judgement(verdict=Verdict.NOT_MEASURED, reason=reason)
                elif name not in selected:
                    reason = "it is in the baseline, but no test has this name; record a new baseline"
                    absent[name] = Judgement(verdict=Verdict.MISSING, reason=reason)
        return absent

    def judge(self, record: Record, broken: list[str], brought: Judgement | None = None) -> Judgement | None:
        """The verdict on one benchmark that ran; None if this run does not compare.

        Args:
            record: what it measured.
            broken: lines of `exact.broken_laws`; any of them makes it REGRESSED.
            brought: the verdict of a benchmark that is not judged by the stored baseline.
        """
        if not self.comparing:
            return None
        judgement = brought or self._verdict(record)
        if broken and (brought is None or brought.verdict.green):
            judgement = Judgement(verdict=Verdict.REGRESSED, reason="; ".join(broken))
        self.judged[record.name] = judgement
        return judgement

    @property
    def green(self) -> bool:
        """Whether something was selected, all of it was judged green, and nothing else failed."""
        everything = bool(self._selected) and self._selected <= set(self.judged) and not self.failures
        return everything and all(judgement.verdict.green for judgement in self.judged.values())

    def summary(self) -> str:
        """The gate's last line: green or not, the count of each verdict, and failures."""
        tally: dict[str, int] = {}
        for judgement in self.judged.values():
            tally[judgement.verdict] = tally.get(judgement.verdict, 0) + 1
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tally.items()))
        said = "; ".join([counts or "nothing was measured", *self.failures])
        return f"gate {'GREEN' if self.green else 'NOT GREEN'}: {said}"

    def measured(self) -> list[Baseline]:
        """What this run measured, as a baseline of one session for each device."""
        return [
            Baseline(
                device=devices()[device],
                versions=versions(),
                commit=self.commit,
                sessions=1,
                entries={r.name: entry_of(_samples(r)) for r in self.records if r.device == device},
            )
            for device in sorted({record.device for record in self.records})
        ]

    def refusal(self, *, passed: bool) -> str | None:
        """Why this run must not be stored (a test failed or a benchmark was left out); None if it may be."""
        measured = {record.name for record in self.records if _took_time(record)}
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
        if not _took_time(record):
            reason = "a round took no time" if record.seconds else "benchmarks are disabled"
            said = str(record.info.get("not_measured", reason))
            return Judgement(verdict=Verdict.NOT_MEASURED, reason=said)
        if baseline is None:
            reason = f"this device has no baseline ({self._paths[record.device]}); record one"
            return Judgement(verdict=Verdict.NEW, reason=reason)
        if baseline.device != devices()[record.device]:
            path = self._paths[record.device]
            reason = (
                f"baseline {path} was recorded on {baseline.device}, this is {devices()[record.device]}; "
                "record a new one"
            )
            return Judgement(verdict=Verdict.INCOMPARABLE, reason=reason)
        samples, entry = _samples(record), baseline.entries.get(record.name)
        judgement = judge(
            samples, entry, sessions=baseline.sessions,
            head_versions=versions(), base_versions=baseline.versions,
        )  # fmt: skip
        return judgement if entry is None else _with_exact(judgement, samples.exact, entry.exact)

    def _read(self, path: Path, device: str) -> Baseline | None:
        """Read a baseline; a damaged one raises in a comparison, but may be replaced by a new recording."""
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
    """The name of each available device, by torch's device type."""
    present = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return {device: device_name(device) for device in present}


def _with_exact(judgement: Judgement, head: Mapping[str, float], base: Mapping[str, float]) -> Judgement:
    """Add the exact facts to a judgement of times: a fact that grew makes it REGRESSED."""
    if judgement.verdict is Verdict.INCOMPARABLE:
        return judgement
    found = changed_facts({name: head.get(name) for name in base}, base)
    notes = (*judgement.notes, *found.better)
    if found.worse:
        return replace(
            judgement,
            verdict=Verdict.REGRESSED,
            reason="; ".join([*found.worse, judgement.reason]),
            exact=found.worse,
            notes=notes,
        )
    if found.unmeasured:
        reason = "in the baseline, but not measured by this run: " + ", ".join(found.unmeasured)
        return replace(judgement, verdict=Verdict.NOT_MEASURED, reason=reason, notes=notes)
    return replace(judgement, notes=notes)


def _took_time(record: Record) -> bool:
    return bool(record.seconds) and min(record.seconds) > 0


def _samples(record: Record) -> Samples:
    info = record.info
    reference = tuple(info.get("reference_seconds", ()))
    paired = len(reference) == len(record.seconds) and all(second > 0 for second in reference)
    counts = {
        fact: info[name]
        for name, fact in EXACT.items()
        if type(info.get(name)) in (int, float) and info[name] >= 0
    }
    return Samples(
        seconds=record.seconds,
        protocol={name: str(info[name]) for name in PROTOCOL if name in info},
        margin=float(info.get("margin", DEFAULT_MARGINS[record.device])),
        reference=str(info.get("reference", "the reference")) if reference and paired else None,
        reference_seconds=reference if paired else (),
        exact=counts,
    )
