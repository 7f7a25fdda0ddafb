"""Rounds of a head and a stored baseline -> one verdict. Pure: no torch, no pytest, no files.

The model. Round i of head and baseline scored the same pairs, so the size of the pairs cancels in
x_i = log(head_i / baseline_i):

    x_i = change + d_head - d_base + e_i

e_i is the noise of single rounds. d is by how much a session (a fresh process) is slower than other sessions
of the same code; its standard deviation is the drift between sessions, which more rounds do not reduce. A
baseline has N sessions: baseline_i is the median over them of round i, and s is the standard deviation of
their levels (the level of a session is the median of its log(round / median over sessions)). With n rounds

    x = median(x_i)
    w = 1.2533 × 1.4826 × MAD(x_i) / sqrt(n)    standard error of a normal sample's median
    b = s × sqrt(1 + pi / (2 N))                drift of one session against the median of N
    u = sqrt((2 w)² + (t b)²)                   t: 95% quantile of Student's t, N - 1 degrees of freedom

    REGRESSED     x - u > log(1 + margin)
    IMPROVED      x + u < log(1 - margin)
    PASS          x + u <= log(1 + margin)
    INCONCLUSIVE  otherwise

Each line tests one end of x ± u, so the drift of unchanged code crosses it in one of twenty runs. s contains
some noise of rounds too, which makes INCONCLUSIVE more likely. With N = 1 there is no s: then u = 2 w, and
only the margin allows for drift.

The speed-up over a reference that ran just before each round is judged by the same rule, with
log(baseline's speed-up / speed-up_i) and the speed-up's own spread. A slower machine slows both, so this
ratio drifts less. If the speed-up fell by more than the margin, the verdict is REGRESSED whatever the seconds
are. If only the seconds grew, it is REGRESSED too, since the reference may share the slow code; the reason
then says that the reference is slower as well.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scipy.stats import t as student_t

from ..verdict import Judgement, Verdict
from .baseline import Entry, log_ratios

FEWEST_ROUNDS: Final = 3
"""With fewer rounds the MAD does not estimate the noise."""

CONFIDENCE: Final = 0.95
"""The probability that drift alone does not cross a bound."""

BLIND_SPOT: Final = "a stored baseline cannot tell slower code from a slower machine; --against REF can"


def judge(
    head: Entry,
    base: Entry | None,
    *,
    head_versions: Mapping[str, str] | None = None,
    base_versions: Mapping[str, str] | None = None,
) -> Judgement:
    """Judge a benchmark by its baseline, with the baseline's margin.

    Args:
        head: what this run measured, one session.
        base: the benchmark's entry in the baseline; None if it has none.
        head_versions: versions of the software in this run; those that differ are named in the notes.
        base_versions: the same of the baseline.
    """
    if base is None:
        return _unjudged(Verdict.NEW, "the baseline has no such benchmark; record one")
    mismatch = _mismatch(head, base)
    if mismatch is not None:
        return _unjudged(Verdict.INCOMPARABLE, mismatch)
    sessions = len(base.sessions)
    change = _change(log_ratios(head.seconds, base.seconds), base.spread, sessions)
    verdict, by_reference = _judge_both(head, base, change)
    reason = f"{_percent(change.ratio)} ± {change.uncertainty:.1%} against the baseline of "
    reason += "one session" if sessions == 1 else f"{sessions} sessions"
    drift = f" (drift {base.spread:.1%})" if base.spread is not None else ""
    reason += f"{drift}, margin {base.margin:.0%}, n={len(head.seconds)} rounds"
    if base.spread is None:
        reason += "; the drift between sessions is unknown, only the margin allows for it"
    elif verdict is Verdict.INCONCLUSIVE and change.drift > change.noise:
        reason += "; most of the uncertainty is drift: record more sessions, or judge with --against REF"
    return Judgement(
        verdict=verdict,
        reason=reason + (f"; {by_reference}" if by_reference else ""),
        ratio=change.ratio,
        uncertainty=change.uncertainty,
        notes=(*differing_versions(head_versions or {}, base_versions or {}), BLIND_SPOT),
    )


def differing_versions(head: Mapping[str, str], base: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each version that differs from the baseline's."""
    names = sorted({*head, *base})
    return tuple(
        f"{name}: baseline {base.get(name, 'none')}, now {head.get(name, 'none')}"
        for name in names
        if head.get(name) != base.get(name)
    )


@dataclass(frozen=True, kw_only=True)
class _Change:
    log: float
    noise: float
    drift: float

    @property
    def ratio(self) -> float:
        return math.exp(self.log)

    @property
    def uncertainty(self) -> float:
        return math.hypot(self.noise, self.drift)

    def verdict(self, margin: float) -> Verdict:
        if self.log - self.uncertainty > math.log1p(margin):
            return Verdict.REGRESSED
        if self.log + self.uncertainty < math.log1p(-margin):
            return Verdict.IMPROVED
        inside = self.log + self.uncertainty <= math.log1p(margin)
        return Verdict.PASS if inside else Verdict.INCONCLUSIVE


def _change(logs: Sequence[float], spread: float | None, sessions: int) -> _Change:
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(log - middle) for log in logs)
    drift = 0.0
    if spread is not None:
        quantile = float(student_t.ppf(CONFIDENCE, sessions - 1))
        drift = quantile * spread * math.sqrt(1 + math.pi / (2 * sessions))
    return _Change(log=middle, noise=2 * 1.2533 * deviation / math.sqrt(len(logs)), drift=drift)


def _judge_both(head: Entry, base: Entry, change: _Change) -> tuple[Verdict, str]:
    """The verdict by seconds and by speed-up, and a text about the speed-up."""
    verdict, before = change.verdict(base.margin), base.speedup
    if before is None:
        return verdict, ""
    if head.reference != base.reference:
        now = f"over {head.reference}" if head.reference else "missing"
        return verdict, f"speed-up not judged: the baseline's is over {base.reference}, this run's {now}"
    logs = [math.log(before) - log for log in head.sessions[0].speedup_logs]
    fall = _change(logs, base.speedup_spread, len(base.sessions))
    moved = f"moved by {math.expm1(-fall.log):+.1%} ± {fall.uncertainty:.1%}"
    over = f"the speed-up over {base.reference} {moved}"
    if fall.verdict(base.margin) is Verdict.REGRESSED:
        return Verdict.REGRESSED, f"{over}: {before:.2f}x before, {before / fall.ratio:.2f}x now"
    slower = change.log - fall.log
    if verdict is Verdict.REGRESSED and slower > 0 and abs(fall.log) <= math.log1p(base.margin):
        return verdict, f"the reference is slower too, by {math.expm1(slower):.1%}; {over}"
    return verdict, over


def _mismatch(head: Entry, base: Entry) -> str | None:
    for name in sorted({*head.protocol, *base.protocol}):
        ours, theirs = head.protocol.get(name), base.protocol.get(name)
        if ours != theirs:
            return f"{name} is {ours}, the baseline's is {theirs}; record a new baseline"
    if len(head.seconds) != len(base.seconds):
        return f"{len(head.seconds)} rounds, the baseline has {len(base.seconds)}; record a new baseline"
    if len(head.seconds) < FEWEST_ROUNDS:
        return f"{len(head.seconds)} rounds; at least {FEWEST_ROUNDS} are needed to estimate the noise"
    return None


def _unjudged(verdict: Verdict, reason: str) -> Judgement:
    return Judgement(verdict=verdict, reason=reason, notes=(BLIND_SPOT,))


def _percent(ratio: float) -> str:
    return f"{abs(ratio - 1):.1%} {'slower' if ratio > 1 else 'faster'}"
