"""Counts that may grow, because a reviewer said so: `accepted.json` beside the baselines.

{"cuda": {"seed-packed": {"kernels": 212, "reason": "one more fused kernel, 10% less time"}}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...errors import BaselineError
from ..exact import FACTS

NAME: Final = "accepted.json"


def read_accepted(directory: Path, device: str) -> dict[str, dict[str, Any]]:
    """What counts may grow to on a device ("cpu" or "cuda"), by configuration; nothing without the file.

    Raises:
        BaselineError: not JSON, a count that nobody knows, no number, or no reason.
    """
    path = directory / NAME
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: _counts(entry) for name, entry in content.get(device, {}).items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise BaselineError(f"{path} cannot be used ({error}): mend it, or restore it from git.") from error


def _counts(entry: Mapping[str, Any]) -> dict[str, Any]:
    counts = {name: value for name, value in entry.items() if name != "reason"}
    if not str(entry.get("reason") or "").strip():
        raise ValueError(f"{dict(counts)} has no reason")
    for name, value in counts.items():
        if name not in FACTS:
            raise ValueError(f"{name} is not one of {', '.join(FACTS)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name}={value!r} is no number")
    return counts
