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
        changed: the other exact facts that changed: smaller ones, and growth that was accepted.
        causes: what became slower: the stage, and kernels or functions.
        findings: what compiled, in the compiler's words.
        notes: further remarks.
    """

    verdict: Verdict
    reason: str
    ratio: float | None = None
    uncertainty: float | None = None
    detectable: float | None = None
    exact: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that is known beside the reason."""
        return (*self.causes, *self.changed, *self.findings, *self.notes)
