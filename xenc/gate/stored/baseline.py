"""Stored baselines: one JSON file per device, one line per benchmark, with the rounds of every session."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import BaselineError
from ..growth import Breakdown
from ..whole_file import write_whole

SCHEMA: Final = 3

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fact = Annotated[int | float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Session(_Frozen):
    """The rounds that one session (a fresh process) timed.

    Attributes:
        seconds: of each round, in order.
        reference_seconds: of what was timed just before each round on the same input; none if nothing was.
    """

    seconds: Annotated[tuple[Seconds, ...], Field(min_length=1)]
    reference_seconds: tuple[Seconds, ...] = ()

    @property
    def speedup_logs(self) -> list[float]:
        """log(reference seconds / own seconds), one per round."""
        return log_ratios(self.reference_seconds, self.seconds)


class Entry(_Frozen):
    """One benchmark: what a run has measured is an entry of one session.

    Attributes:
        protocol: what must be equal for two entries to be comparable, by name: workload, dtype, model.
        margin: slowdown that is tolerated, as a fraction.
        reference: the name of what `reference_seconds` were measured on; None for nothing.
        exact: exact facts, by name; the largest value of any session.
        breakdown: what the latest session consists of.
        sessions: all with the same number of rounds.
    """

    protocol: dict[str, str]
    margin: Annotated[float, Field(gt=0, lt=1)]
    reference: str | None = None
    exact: dict[str, Fact] = Field(default_factory=dict)
    breakdown: Breakdown = Field(default_factory=Breakdown)
    sessions: Annotated[tuple[Session, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Entry:
        rounds = {len(session.seconds) for session in self.sessions}
        referenced = {len(session.reference_seconds) for session in self.sessions}
        if len(rounds) > 1 or referenced != ({0} if self.reference is None else rounds):
            raise ValueError("all sessions need the same rounds, and the reference as many")
        return self

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of each round, the median over the sessions."""
        every = zip(*(session.seconds for session in self.sessions), strict=True)
        return tuple(statistics.median(each) for each in every)

    @property
    def spread(self) -> float | None:
        """The drift: standard deviation between the levels of the sessions, in logs; None for one session.

        The level of a session is the median over rounds of log(its seconds / median over sessions).
        """
        return _deviation(
            [statistics.median(log_ratios(session.seconds, self.seconds)) for session in self.sessions]
        )

    @property
    def speedup(self) -> float | None:
        """Seconds of the reference / own seconds: the median over rounds, then over sessions."""
        return None if self.reference is None else math.exp(statistics.median(self._speedups))

    @property
    def speedup_spread(self) -> float | None:
        """Standard deviation between sessions of log(speedup); None for one session."""
        return _deviation(self._speedups)

    @property
    def _speedups(self) -> list[float]:
        return [statistics.median(session.speedup_logs) for session in self.sessions]


class Baseline(_Frozen):
    """The entries of one device.

    Attributes:
        device: `machine.device_name` of the machine that recorded it.
        versions: `machine.versions` of that machine.
        commit: the revision that was measured.
        entries: by pytest node id, all with the same number of sessions.
    """

    device: str
    versions: dict[str, str]
    commit: str
    entries: dict[str, Entry]

    @model_validator(mode="after")
    def _check(self) -> Baseline:
        if len({len(entry.sessions) for entry in self.entries.values()}) > 1:
            raise ValueError("all benchmarks need the same number of sessions")
        return self

    @property
    def sessions(self) -> int:
        """How many sessions measured it; 0 without entries."""
        return next((len(entry.sessions) for entry in self.entries.values()), 0)

    @property
    def counted(self) -> str:
        """Its sessions in words: "1 session", "3 sessions"."""
        return f"{self.sessions} session{'s' if self.sessions > 1 else ''}"


class SchemaError(BaselineError):
    """The baseline was written in another schema."""


def baseline_path(directory: Path, device: str) -> Path:
    """The path of a device's baseline: a slug of the device's name."""
    return directory / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        SchemaError: it was written in another schema.
        BaselineError: it cannot be read, is not JSON or is not a baseline; the message names the file.
    """
    remedy = "restore it from git, or record a new one with --gate-record"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"baseline {path} is not complete JSON ({error}): {remedy}.") from error
    except OSError as error:
        raise BaselineError(f"baseline {path} cannot be read ({error}): {remedy}.") from error
    schema = content.pop("schema", None) if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise SchemaError(f"baseline {path} has schema {schema!r}, this gate reads {SCHEMA}: {remedy}.")
    try:
        return Baseline.model_validate_json(json.dumps(content))
    except (ValidationError, OverflowError) as error:
        raise BaselineError(f"baseline {path} is damaged ({_first_fault(error)}): {remedy}.") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline atomically: if that fails, the old one remains.

    Raises:
        BaselineError: it cannot be written, for instance because the disk is full.
    """
    content: dict[str, Any] = {"schema": SCHEMA, **baseline.model_dump(mode="json", exclude={"entries"})}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in content.items()]
    entries = [
        f"    {json.dumps(name)}: {entry.model_dump_json(exclude_defaults=True)}"
        for name, entry in sorted(baseline.entries.items())
    ]
    text = "\n".join(["{", *lines, '  "entries": {', ",\n".join(entries), "  }", "}", ""])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise BaselineError(
            f"baseline {path} cannot be written ({error.strerror or error}), the old one is unchanged: free "
            "some disk space, or choose another folder with --gate-baselines, and record again."
        ) from error


def _first_fault(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors()[0]
    return f"{'.'.join(map(str, found['loc'])) or 'the file'}: {found['msg']}"


def log_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """log(ours / theirs), one per round."""
    return [math.log(one) - math.log(other) for one, other in zip(ours, theirs, strict=True)]


def _deviation(levels: Sequence[float]) -> float | None:
    return statistics.stdev(levels) if len(levels) > 1 else None
