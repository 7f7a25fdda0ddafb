"""The stages of a run. Each is useful alone, and fits into a short loan of a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one run measures.

    Attributes:
        seconds: when to stop beginning new things.
        parts: names of `parts.PARTS`, in this order.
        rows: of the table; None for all.
    """

    seconds: float
    parts: tuple[str, ...]
    rows: tuple[str, ...] | None = None


STAGES: Final = MappingProxyType(
    {
        "first": Stage(
            seconds=240,
            parts=("smoke", "rows", "kernels"),
            rows=(
                "packed", "packed, cuBLASLt", "packed-cudagraphs", "sentence-transformers, batch 64",
                "sentence-transformers-compiled, batch 64", "compiled-sdpa-sorted",
            ),
        ),
        "table": Stage(
            seconds=300,
            parts=(
                "rows", "requests", "company", "profiles", "cold start", "compile", "modernbert", "landmark",
            ),
        ),
        "gate": Stage(seconds=200, parts=("gate",), rows=()),
    }
)  # fmt: skip
