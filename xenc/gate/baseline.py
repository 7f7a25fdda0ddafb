"""Stored baselines: one reviewed JSON file per device, one line per benchmark."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import BaselineError
from .verdict import Samples

SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Accepted samples of one device.

    Attributes:
        device: `machine.device_name` of the machine that recorded it.
        versions: `machine.versions` of that machine.
        commit: the revision that was measured.
        entries: samples by pytest node id.
    """

    device: str
    versions: Mapping[str, str]
    commit: str
    entries: Mapping[str, Samples]


class SchemaError(BaselineError):
    """A baseline written by another version of the gate."""


def baseline_path(directory: Path, device: str) -> Path:
    """Where the baseline of a device lives: a slug of its name."""
    return directory / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        SchemaError: written in another schema.
        BaselineError: not JSON, cut short, or not a baseline; the message names the file and the remedy.
    """
    remedy = "restore it from git, or record a new one with --record-baseline"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BaselineError(f"baseline {path} is not JSON or was cut short ({error}): {remedy}.") from error
    except OSError as error:
        raise BaselineError(f"baseline {path} cannot be read ({error}): {remedy}.") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise SchemaError(f"baseline {path} has schema {schema!r}, this gate reads {SCHEMA}: {remedy}.")
    try:
        return Baseline(
            device=str(content["device"]),
            versions={str(name): str(value) for name, value in content["versions"].items()},
            commit=str(content["commit"]),
            entries={str(name): _samples(entry) for name, entry in content["entries"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BaselineError(f"baseline {path} is damaged ({error!r}): {remedy}.") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline in one step, so that an interrupted run leaves the old one as it was."""
    head = {
        "schema": SCHEMA,
        "device": baseline.device,
        "versions": dict(baseline.versions),
        "commit": baseline.commit,
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    entries = [
        f"    {json.dumps(name)}: {json.dumps(_entry(samples))}"
        for name, samples in sorted(baseline.entries.items())
    ]
    text = "\n".join(["{", *lines, '  "entries": {', ",\n".join(entries), "  }", "}", ""])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _samples(entry: Mapping[str, Any]) -> Samples:
    seconds = tuple(float(value) for value in entry["seconds"])
    margin = float(entry["margin"])
    if not all(math.isfinite(value) and value > 0 for value in seconds):
        raise ValueError(f"seconds {seconds} must be positive")
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin} must lie between 0 and 1")
    return Samples(
        seconds=seconds,
        protocol={str(name): str(value) for name, value in entry["protocol"].items()},
        margin=margin,
    )


def _entry(samples: Samples) -> dict[str, Any]:
    return {
        "margin": samples.margin,
        "protocol": dict(samples.protocol),
        "seconds": [float(f"{value:.6g}") for value in samples.seconds],
    }
