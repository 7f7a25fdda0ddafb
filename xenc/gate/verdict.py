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
    """A verdict and what it rests on.

    Attributes:
        verdict: the word.
        reason: in words.
        ratio: head / base, of seconds.
        uncertainty: of log(ratio), to either side.
        detectable: the smallest slowdown that would have been called REGRESSED, as a fraction.
        exact: facts that alone make it REGRESSED, old -> new.
        notes: what else to know.
    """

    verdict: Verdict
    reason: str
    ratio: float | None = None
    uncertainty: float | None = None
    detectable: float | None = None
    exact: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
