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
                "packed", "packed, launched one by one", "packed, cuBLASLt", "compiled-sdpa-sorted",
                "sentence-transformers, batch 128", "sentence-transformers-compiled, batch 128",
            ),
        ),
        "claim": Stage(
            seconds=235,
            parts=("ahead", "rows", "gate", "requests", "cold start"),
            rows=(
                "packed", "packed, launched one by one", "packed, 16,384 tokens", "packed, 65,536 tokens",
                "packed, cuBLASLt", "packed-float8", "bucketed, launched one by one",
                "sentence-transformers-compiled, batch 128",
            ),
        ),
        "table": Stage(
            seconds=330,
            parts=("rows", "requests", "company", "profiles", "cold start", "modernbert", "landmark"),
        ),
        "gate": Stage(seconds=220, parts=("gate",), rows=()),
        "all": Stage(
            seconds=525,
            parts=(
                "ahead", "rows", "gate", "requests", "company", "cold start", "profiles", "modernbert",
                "landmark",
            ),
        ),
    }
)  # fmt: skip
