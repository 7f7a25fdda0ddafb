"""The words of the gate, and which of them are green. Pure: no torch, no pytest, no files."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """What the gate says of one benchmark."""

    PASS = "PASS"
    IMPROVED = "IMPROVED"
    REGRESSED = "REGRESSED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NEW = "NEW"
    MISSING = "MISSING"
    INCOMPARABLE = "INCOMPARABLE"
    NOT_MEASURED = "NOT MEASURED"

    @property
    def green(self) -> bool:
        """Whether a merge may go ahead."""
        return self in (Verdict.PASS, Verdict.IMPROVED)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, its reason in words, and the ratio head / baseline with its uncertainty."""

    verdict: Verdict
    reason: str
    ratio: float | None = None
    uncertainty: float | None = None
    notes: tuple[str, ...] = field(default=())
