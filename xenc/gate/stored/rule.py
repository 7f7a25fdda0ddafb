"""Rounds of a head + a stored baseline -> one verdict. Pure: no torch, no pytest, no files.

The model. Round i of head and baseline scored the same pairs, so x_i = log(head_i / baseline_i) is free of
what the pairs cost:

    x_i = change + d_head - d_base + e_i

e_i is the noise of single rounds. d is what a whole session, a fresh process, is slower than others of the
same code: its standard deviation is the drift between sessions, and more rounds do not lessen it. A baseline
holds the median over N sessions of each round, and as its spread s the standard deviation of the sessions'
levels (a session's level: the median of its log(round / the median over sessions)). With n rounds

    x = median(x_i)
    w = 1.2533 × 1.4826 × MAD(x_i) / sqrt(n)    standard error of a normal sample's median
    b = s × sqrt(1 + pi / (2 N))                drift of one session against the median of N
    u = sqrt((2 w)² + (t b)²)                   t: 95% quantile of Student's t, N - 1 degrees of freedom

    REGRESSED     x - u > log(1 + margin)
    IMPROVED      x + u < log(1 - margin)
    PASS          x + u <= log(1 + margin)
    INCONCLUSIVE  otherwise

Each line looks at one end of x ± u, so at 95% the drift of unchanged code crosses it once in twenty times. s
holds some noise of rounds too, which errs on the side of INCONCLUSIVE. With N = 1 there is no s: u = 2 w, and
the margin is all there is for drift.

The speed-up over a reference that ran right before each round is judged by the same rule, by
log(baseline's speed-up / speed-up_i) and the speed-up's own spread. What slows the whole machine slows both,
so this ratio drifts less. If it fell beyond the margin, the benchmark REGRESSED, whatever its seconds say. If
only the seconds did, it REGRESSED as well, for the reference may share the slow code, and the reason says
that the reference is slower too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scipy.stats import t as student_t

from ..verdict import Judgement, Verdict
from .entry import Entry, Samples, log_ratios, speedup_logs

FEWEST_ROUNDS: Final = 3
"""Below this the MAD says nothing of the noise."""

CONFIDENCE: Final = 0.95
"""How sure each bound is of not being crossed by drift alone."""

BLIND_SPOT: Final = "a stored baseline cannot see that the machine itself is slower today; --against REF can"


def judge(
    head: Samples,
    base: Entry | None,
    *,
    sessions: int,
    head_versions: Mapping[str, str] | None = None,
    base_versions: Mapping[str, str] | None = None,
) -> Judgement:
    """Judge a benchmark against its baseline, made of `sessions` sessions; the margin is the baseline's.

    Differing versions are judged all the same, and named.
    """
    if not head.seconds:
        return _unjudged(Verdict.NOT_MEASURED, "no round was timed")
    if base is None:
        return _unjudged(Verdict.NEW, "the baseline has no such benchmark; record one")
    mismatch = _mismatch(head, base)
    if mismatch is not None:
        return _unjudged(Verdict.INCOMPARABLE, mismatch)
    change = _change(log_ratios(head.seconds, base.seconds), base.spread, sessions)
    verdict, by_reference = _judge_both(head, base, change, sessions)
    reason = f"{_percent(change.ratio)} ± {change.uncertainty:.1%} against the baseline of "
    reason += "one session" if sessions == 1 else f"{sessions} sessions"
    drift = f" (drift {base.spread:.1%})" if base.spread is not None else ""
    reason += f"{drift}, margin {base.margin:.0%}, n={len(head.seconds)} rounds"
    if base.spread is None:
        reason += "; how sessions drift is unknown, the margin is all there is for it"
    elif verdict is Verdict.INCONCLUSIVE and change.drift > change.noise:
        reason += "; most of ± is drift: record more sessions, or judge with --against REF"
    return Judgement(
        verdict=verdict,
        reason=reason + (f"; {by_reference}" if by_reference else ""),
        ratio=change.ratio,
        uncertainty=change.uncertainty,
        notes=(*differing_versions(head_versions or {}, base_versions or {}), BLIND_SPOT),
    )


def differing_versions(head: Mapping[str, str], base: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each version that the baseline was recorded with another of."""
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


def _judge_both(head: Samples, base: Entry, change: _Change, sessions: int) -> tuple[Verdict, str]:
    """The verdict by seconds and by speed-up, and what the speed-up has to say."""
    verdict, stored = change.verdict(base.margin), base.speedup
    if stored is None:
        return verdict, ""
    if head.reference != stored.reference:
        now = f"over {head.reference}" if head.reference else "missing"
        return verdict, f"speed-up not judged: the baseline's is over {stored.reference}, this run's {now}"
    logs = [math.log(stored.times) - log for log in speedup_logs(head)]
    fall = _change(logs, stored.spread, sessions)
    moved = f"moved by {math.expm1(-fall.log):+.1%} ± {fall.uncertainty:.1%}"
    over = f"the speed-up over {stored.reference} {moved}"
    if fall.verdict(base.margin) is Verdict.REGRESSED:
        return Verdict.REGRESSED, f"{over}: {stored.times:.2f}x before, {stored.times / fall.ratio:.2f}x now"
    slower = change.log - fall.log
    if verdict is Verdict.REGRESSED and slower > 0 and abs(fall.log) <= math.log1p(base.margin):
        return verdict, f"the reference is slower too: by {math.expm1(slower):.1%}; {over}"
    return verdict, over


def _mismatch(head: Samples, base: Entry) -> str | None:
    for name in sorted({*head.protocol, *base.protocol}):
        ours, theirs = head.protocol.get(name), base.protocol.get(name)
        if ours != theirs:
            return f"{name} is {ours}, the baseline's is {theirs}; record a new baseline"
    if len(head.seconds) != len(base.seconds):
        return f"{len(head.seconds)} rounds, the baseline has {len(base.seconds)}; record a new baseline"
    if len(head.seconds) < FEWEST_ROUNDS:
        return f"{len(head.seconds)} rounds; fewer than {FEWEST_ROUNDS} cannot tell a change from noise"
    return None


def _unjudged(verdict: Verdict, reason: str) -> Judgement:
    return Judgement(verdict=verdict, reason=reason, notes=(BLIND_SPOT,))


def _percent(ratio: float) -> str:
    return f"{abs(ratio - 1):.1%} {'slower' if ratio > 1 else 'faster'}"
