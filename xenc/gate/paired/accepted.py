"""Exact facts that a reviewer allowed to grow: `accepted.json` in the folder of the baselines.

{"cuda": {"tests/test_speed.py::test_sort": {"kernels": 212, "reason": "a fused kernel, 10% less time"}}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import BaselineError

NAME: Final = "accepted.json"


def read_accepted(directory: Path, device: str) -> dict[str, dict[str, Any]]:
    """The values that facts may grow to on a device ("cpu" or "cuda"), by node id and fact.

    Returns:
        An empty mapping if there is no such file.

    Raises:
        BaselineError: the file is not JSON, or lacks a number or a reason.
    """
    path = directory / NAME
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: _counts(entry) for name, entry in content.get(device, {}).items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise BaselineError(f"{path} cannot be used ({error}): fix it, or restore it from git.") from error


def _counts(entry: Mapping[str, Any]) -> dict[str, Any]:
    counts = {name: value for name, value in entry.items() if name != "reason"}
    if not str(entry.get("reason") or "").strip():
        raise ValueError(f"{dict(counts)} has no reason")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name}={value!r} is not a finite number")
    return counts
