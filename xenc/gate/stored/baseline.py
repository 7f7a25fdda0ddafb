"""Stored baselines: one JSON file per device, one line per benchmark."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import BaselineError
from ..whole_file import write_whole
from .entry import Entry, Speedup

SCHEMA: Final = 2


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The samples of one device. One session that is still to be merged is a baseline with `sessions` = 1.

    Attributes:
        device: `machine.device_name` of the machine that recorded it.
        versions: `machine.versions` of that machine.
        commit: the revision that was measured.
        sessions: how many sessions (fresh processes) measured it.
        entries: by pytest node id.
    """

    device: str
    versions: Mapping[str, str]
    commit: str
    sessions: int
    entries: Mapping[str, Entry]


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
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BaselineError(f"baseline {path} is not complete JSON ({error}): {remedy}.") from error
    except OSError as error:
        raise BaselineError(f"baseline {path} cannot be read ({error}): {remedy}.") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise SchemaError(f"baseline {path} has schema {schema!r}, this gate reads {SCHEMA}: {remedy}.")
    try:
        sessions = content["sessions"]
        if type(sessions) is not int or sessions < 1:
            raise ValueError(f"sessions {sessions!r} must be an integer >= 1")
        return Baseline(
            device=str(content["device"]),
            versions={str(name): str(value) for name, value in content["versions"].items()},
            commit=str(content["commit"]),
            sessions=sessions,
            entries={str(name): _read_entry(entry, sessions) for name, entry in content["entries"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BaselineError(f"baseline {path} is damaged ({error!r}): {remedy}.") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline atomically: if that fails, the old one remains.

    Raises:
        BaselineError: it cannot be written, for instance because the disk is full.
    """
    head = {
        "schema": SCHEMA,
        "device": baseline.device,
        "versions": dict(baseline.versions),
        "commit": baseline.commit,
        "sessions": baseline.sessions,
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    entries = [
        f"    {json.dumps(name)}: {json.dumps(_written(entry))}"
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


def _read_entry(entry: Mapping[str, Any], sessions: int) -> Entry:
    seconds = tuple(float(_number(value, "seconds")) for value in entry["seconds"])
    margin = _number(entry["margin"], "margin")
    if not seconds or not all(value > 0 for value in seconds):
        raise ValueError(f"seconds {seconds} must be positive")
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin} must lie between 0 and 1")
    speedup = entry.get("speedup")
    return Entry(
        seconds=seconds,
        protocol={str(name): str(value) for name, value in entry["protocol"].items()},
        margin=margin,
        spread=_read_spread(entry["spread"], sessions),
        speedup=None if speedup is None else _read_speedup(speedup, sessions),
        exact={str(name): _number(value, name) for name, value in entry.get("exact", {}).items()},
    )


def _read_speedup(speedup: Mapping[str, Any], sessions: int) -> Speedup:
    times = _number(speedup["times"], "speedup")
    if not times > 0:
        raise ValueError(f"speedup {times} must be positive")
    spread = _read_spread(speedup["spread"], sessions)
    return Speedup(reference=str(speedup["reference"]), times=times, spread=spread)


def _read_spread(value: object, sessions: int) -> float | None:
    if (value is None) != (sessions == 1):
        raise ValueError(f"spread {value!r} with {sessions} sessions: only several sessions have a spread")
    return None if value is None else _number(value, "spread")


def _number(value: object, name: str) -> float:
    """A finite number >= 0; integers stay integers."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} {value!r} must be a finite number >= 0")
    return value


def _written(entry: Entry) -> dict[str, Any]:
    written: dict[str, Any] = {
        "margin": entry.margin,
        "protocol": dict(entry.protocol),
        "seconds": [_rounded(value) for value in entry.seconds],
        "spread": None if entry.spread is None else _rounded(entry.spread),
    }
    if entry.speedup is not None:
        spread = entry.speedup.spread
        written["speedup"] = {
            "reference": entry.speedup.reference,
            "times": _rounded(entry.speedup.times),
            "spread": None if spread is None else _rounded(spread),
        }
    if entry.exact:
        written["exact"] = dict(entry.exact)
    return written


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
