"""Samples + baseline -> one verdict. Pure: no torch, no pytest, no files.

The rule. Round i of head and baseline scored the same pairs, so their ratio r_i is free of what the pairs
cost. With r the median ratio, s = 1.4826 x MAD its robust standard deviation and n rounds, the median is
known to within u = 2 x 1.2533 x s / sqrt(n) (two standard errors of a normal sample's median). Then

    REGRESSED     r - u > 1 + margin
    IMPROVED      r + u < 1 - margin
    PASS          r + u <= 1 + margin
    INCONCLUSIVE  otherwise

What it cannot see: that a machine is slower today than when the baseline was recorded. The margin has to
cover that drift, which is why it is wide on a CPU.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


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


FEWEST_ROUNDS: Final = 3
"""Below this the MAD says nothing of the noise."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """One benchmark's timed rounds.

    Attributes:
        seconds: per round, in order.
        protocol: what must be equal for two samples to be comparable, by name: workload fingerprint,
            dtype, model, ...
        margin: the slowdown that is tolerated, as a fraction.
    """

    seconds: tuple[float, ...]
    protocol: Mapping[str, str]
    margin: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, its reason in words, and the ratio head / baseline with its uncertainty."""

    verdict: Verdict
    reason: str
    ratio: float | None = None
    uncertainty: float | None = None
    notes: tuple[str, ...] = field(default=())


def judge(
    head: Samples,
    base: Samples | None,
    *,
    head_versions: Mapping[str, str] | None = None,
    base_versions: Mapping[str, str] | None = None,
) -> Judgement:
    """Judge a benchmark against its baseline; the margin is the baseline's.

    Differing versions are judged all the same, and named.
    """
    if not head.seconds:
        return Judgement(verdict=Verdict.NOT_MEASURED, reason="no round was timed")
    if base is None:
        return Judgement(verdict=Verdict.NEW, reason="the baseline has no such benchmark; record one")
    mismatch = _mismatch(head, base)
    if mismatch is not None:
        return Judgement(verdict=Verdict.INCOMPARABLE, reason=mismatch)
    ratios = [ours / theirs for ours, theirs in zip(head.seconds, base.seconds, strict=True)]
    ratio, uncertainty = _median_with_uncertainty(ratios)
    return Judgement(
        verdict=_verdict(ratio, uncertainty, base.margin),
        reason=f"{_percent(ratio)} ± {uncertainty:.1%} against the baseline, margin {base.margin:.0%}, "
        f"n={len(ratios)} rounds",
        ratio=ratio,
        uncertainty=uncertainty,
        notes=differing_versions(head_versions or {}, base_versions or {}),
    )


def differing_versions(head: Mapping[str, str], base: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each version that the baseline was recorded with another of."""
    names = sorted({*head, *base})
    return tuple(
        f"{name}: baseline {base.get(name, 'none')}, now {head.get(name, 'none')}"
        for name in names
        if head.get(name) != base.get(name)
    )


def _mismatch(head: Samples, base: Samples) -> str | None:
    for name in sorted({*head.protocol, *base.protocol}):
        ours, theirs = head.protocol.get(name), base.protocol.get(name)
        if ours != theirs:
            return f"{name} is {ours}, the baseline's is {theirs}; record a new baseline"
    if len(head.seconds) != len(base.seconds):
        return f"{len(head.seconds)} rounds, the baseline has {len(base.seconds)}; record a new baseline"
    if len(head.seconds) < FEWEST_ROUNDS:
        return f"{len(head.seconds)} rounds; fewer than {FEWEST_ROUNDS} cannot tell a change from noise"
    return None


def _median_with_uncertainty(ratios: Sequence[float]) -> tuple[float, float]:
    median = statistics.median(ratios)
    deviation = 1.4826 * statistics.median(abs(ratio - median) for ratio in ratios)
    return median, 2 * 1.2533 * deviation / math.sqrt(len(ratios))


def _verdict(ratio: float, uncertainty: float, margin: float) -> Verdict:
    if ratio - uncertainty > 1 + margin:
        return Verdict.REGRESSED
    if ratio + uncertainty < 1 - margin:
        return Verdict.IMPROVED
    return Verdict.PASS if ratio + uncertainty <= 1 + margin else Verdict.INCONCLUSIVE


def _percent(ratio: float) -> str:
    return f"{abs(ratio - 1):.1%} {'slower' if ratio > 1 else 'faster'}"
