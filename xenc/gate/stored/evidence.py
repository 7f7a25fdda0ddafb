"""What the stored baselines say of each test, and what a run that is to be stored has measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ..errors import BaselineError
from ..exact import broken_laws, changed_facts
from ..growth import Breakdown, causes_of
from ..measuring.machine import devices, versions
from ..record import Record
from ..verdict import Judgement, Verdict
from .baseline import Baseline, Entry, SchemaError, Session, baseline_path, read_baseline
from .record import store
from .rule import judge

DEFAULT_MARGINS: Final = {"cpu": 0.15, "cuda": 0.05}
"""The margin of a new baseline entry, by device: about the drift between sessions on one machine."""

PROTOCOL: Final = ("workload_fingerprint", "model", "dtype")
"""Keys of a benchmark's `extra_info` whose values must equal the baseline's."""


class Stored:
    """The baselines of the devices of this machine.

    Args:
        directory: their folder.
        named: the one to be used for every device; None for each device's own.
        must_read: whether a damaged one is an error; a run that records may replace it.
        root: the folder that node ids start from.

    Attributes:
        directory, root: as given.
        files: those that pytest has read in this run, also without benchmarks.

    Raises:
        BaselineError: a baseline that must be read cannot be.
    """

    def __init__(self, directory: Path, *, named: Path | None, must_read: bool, root: Path) -> None:
        self.directory, self.root, self.files = directory, root, set[str]()
        self._must_read = must_read
        self._unreadable: dict[str, str] = {}
        self._paths = {
            device: named or baseline_path(directory, name) for device, name in devices().items()
        }  # fmt: skip
        self._baselines = {device: self._read(path, device) for device, path in self._paths.items()}

    def describe(self, device: str) -> str:
        """Which baseline judges a device, in one line."""
        baseline = self._baselines.get(device)
        if baseline is None:
            return f"no baseline for {device} ({self._paths.get(device, 'no such device')})"
        return f"judged by {self._paths[device]}, {baseline.counted} of commit {baseline.commit[:12]}"

    def absent(self, selected: Mapping[str, str], deselected: Mapping[str, str]) -> dict[str, Judgement]:
        """Verdicts on the tests that the baselines have and the run will not measure, by node id.

        Args:
            selected: the device of each test that will run, by node id.
            deselected: the same of those left out by -m, -k or --deselect.
        """
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

    def judge(self, record: Record) -> Judgement:
        """The verdict on a test that ran."""
        device = record.device
        baseline, path = self._baselines.get(device), self._paths.get(device)
        if device in self._unreadable:
            return Judgement(verdict=Verdict.INCOMPARABLE, reason=self._unreadable[device])
        if not record.took_time:
            reason = "a round took no time" if record.seconds else "benchmarks are disabled"
            said = str(record.info.get("not_measured", reason))
            return Judgement(verdict=Verdict.NOT_MEASURED, reason=said)
        if baseline is None:
            reason = f"this device has no baseline ({path}); record one with --gate-record"
            return Judgement(verdict=Verdict.NEW, reason=reason)
        if baseline.device != devices()[device]:
            reason = (
                f"baseline {path} was recorded on {baseline.device}, this is {devices()[device]}; "
                "record a new one"
            )
            return Judgement(verdict=Verdict.INCOMPARABLE, reason=reason)
        head, base = entry_of(record), baseline.entries.get(record.name)
        judgement = judge(head, base, head_versions=versions(), base_versions=baseline.versions)
        return judgement if base is None else _with_exact(judgement, head, base)

    def store(
        self, records: Sequence[Record], selected: set[str], deselected: set[str], *,
        passed: bool, commit: str, commit_now: str,
    ) -> list[str]:  # fmt: skip
        """Store what a run measured, as one session of each device's baseline.

        Args:
            records: what it measured.
            selected, deselected: node ids of the tests that ran, and of those that were left out.
            passed: whether every test passed.
            commit, commit_now: the revision at the start and at the end of the run.

        Returns:
            Text for the reviewer.

        Raises:
            BaselineError: the run must not be stored, or the baseline cannot be written.
        """
        refusal = self._refusal(records, selected, deselected, passed=passed)
        if refusal is None and commit_now != commit:
            refusal = f"the checkout changed during the measurement, from {commit} to {commit_now}"
        if refusal is not None:
            raise BaselineError(refusal)
        told = []
        for device in sorted({record.device for record in records}):
            entries = {each.name: entry_of(each) for each in records if each.device == device}
            session = Baseline(
                device=devices()[device], versions=versions(), commit=commit, entries=entries
            )  # fmt: skip
            told += store(session, self.directory)
        return told

    def _refusal(
        self, records: Sequence[Record], selected: set[str], deselected: set[str], *, passed: bool
    ) -> str | None:
        """Why a run must not be stored (a test failed or one was left out); None if it may be."""
        measured = {record.name for record in records if record.took_time}
        if not measured:
            return "nothing was measured"
        if not passed:
            return "a test failed"
        broken = [record.name for record in records if broken_laws(record.info)]
        if broken:
            return f"{', '.join(broken)} broke a law that no baseline may hold"
        stored = [self._baselines.get(device) for device in {record.device for record in records}]
        known = {name for baseline in stored if baseline is not None for name in baseline.entries}
        collected = self.files | {name.partition("::")[0] for name in selected | deselected}
        unread = {name for name in known if name.partition("::")[0] not in collected and self._has_file(name)}
        left_out = sorted((selected - measured) | (known & deselected) | unread)
        return f"the run left out {', '.join(left_out)}" if left_out else None

    def _has_file(self, name: str) -> bool:
        return (self.root / name.partition("::")[0]).is_file()

    def _read(self, path: Path, device: str) -> Baseline | None:
        if not path.exists():
            return None
        try:
            return read_baseline(path)
        except SchemaError as error:
            self._unreadable[device] = str(error)
        except BaselineError:
            if self._must_read:
                raise
        return None


def entry_of(record: Record) -> Entry:
    """What a run measured of a test, as an entry of one session; seconds with six significant digits."""
    info = record.info
    reference = tuple(info.get("reference_seconds", ()))
    timed = len(reference) == len(record.seconds) and min(reference, default=0) > 0
    exact = {
        name: value
        for name, value in info.get("exact", {}).items()
        if type(value) in (int, float) and math.isfinite(value)
    }
    return Entry(
        protocol={name: str(info[name]) for name in PROTOCOL if name in info},
        margin=float(info.get("margin", DEFAULT_MARGINS[record.device])),
        reference=str(info.get("reference", "the reference")) if timed else None,
        exact=exact,
        breakdown=Breakdown(**info.get("breakdown", {})),
        sessions=(
            Session(seconds=_rounded(record.seconds), reference_seconds=_rounded(reference) if timed else ()),
        ),
    )


def _rounded(seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{second:.6g}") for second in seconds)


def _with_exact(judgement: Judgement, head: Entry, base: Entry) -> Judgement:
    """Add the exact facts to a judgement of times, and the causes: a fact that grew makes it REGRESSED."""
    if judgement.verdict is Verdict.INCOMPARABLE:
        return judgement
    names = {**base.exact, **head.exact}
    facts: dict[str, Any] = {name: head.exact.get(name) for name in names}
    found = changed_facts(facts, base.exact)
    judgement = replace(judgement, changed=(*found.better, *found.notes))
    if found.worse:
        reason = "; ".join([*found.worse, judgement.reason])
        judgement = replace(judgement, verdict=Verdict.REGRESSED, reason=reason, exact=found.worse)
    elif found.unmeasured:
        reason = "in the baseline, but not measured by this run: " + ", ".join(found.unmeasured)
        return replace(judgement, verdict=Verdict.NOT_MEASURED, reason=reason)
    if judgement.verdict is Verdict.REGRESSED:
        judgement = replace(judgement, causes=causes_of(head.breakdown, base.breakdown))
    return judgement
