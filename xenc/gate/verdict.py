"""The verdicts, and which of them are green. Pure: no torch, no pytest, no files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The gate's verdict on one benchmark."""

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
    """A verdict and its grounds.

    Attributes:
        verdict: the verdict.
        reason: the grounds in words.
        ratio: seconds of head / seconds of base.
        uncertainty: half the width of the confidence interval of log(ratio).
        detectable: the smallest slowdown that would have been called REGRESSED, as a fraction.
        exact: the exact facts that make it REGRESSED, one line each, old -> new.
        notes: further remarks.
    """

    verdict: Verdict
    reason: str
    ratio: float | None = None
    uncertainty: float | None = None
    detectable: float | None = None
    exact: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
