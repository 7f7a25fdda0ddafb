"""Interleaved blocks of two revisions in several processes -> a verdict. Pure: no torch, no files.

The model. In process p and palindrome i, let A and B be the mean log seconds of the two blocks of each arm:

    B_pi - A_pi = d + u_p + e_pi,        u_p ~ N(0, tau^2),   e_pi independent of each other

d is the cost of the change. u_p is the difference between the two copies in this process that the code does
not cause (where code and memory are placed). e_pi is the noise of one palindrome. A palindrome (A B B A)
cancels linear drift, and slower drift hardly affects a difference of neighbours. Blocks of one process share
u_p, so more blocks do not average it away: the process is the unit of the statistics. Each process gives one
number x_p, the median of its palindromes (on a shared machine some palindromes are outliers). The
x_p ~ N(d, tau^2 + pi/2 x sigma^2 / n) are independent, provided that base and head take turns in being
created first: the later one was measured up to half a percent faster. With P processes, and mean m and
standard deviation s of the x_p, the one-sided confidence bounds of d follow from Student's t:

    m -/+ t(1 - a, P - 1) x s / sqrt(P)

REGRESSED     lower bound > margin       the slowdown exceeds the margin
IMPROVED      upper bound < -margin
PASS          upper bound < must_see     the slowdown is below what must be seen
INCONCLUSIVE  otherwise

The error. `error` bounds the probability that any comparison of the run is falsely called REGRESSED, and that
a slowdown of must_see passes. The probability that any is falsely called IMPROVED has the same bound. It is
divided by the number of comparisons (Bonferroni) and by the number of looks: the run may end after each of
`looks` processes if every comparison is decided, so each look has its share of the error.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from scipy import optimize, stats

from ..errors import UnreachableError
from ..verdict import Judgement, Verdict

Channel = Literal["wall_s", "device_s"]

CHANNEL_NAMES: Final[Mapping[Channel, str]] = {"wall_s": "wall time", "device_s": "device time"}
"""The name of each channel in reports."""

POWER: Final = 0.95
"""The probability with which a detectable slowdown is called REGRESSED."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The margins and error rates of a comparison.

    Attributes:
        margin: slowdown that is tolerated, as a fraction.
        must_see: slowdown that must not pass, as a fraction.
        looks: numbers of processes after which the run may end; the last is the maximum.
        error: bound on the probability of a false verdict in the whole run.
        usual_spread: standard deviation between processes that the looks were chosen for, as a fraction.
    """

    margin: float
    must_see: float
    looks: tuple[int, ...] = (5, 8)
    error: float = 0.01
    usual_spread: float = 0.005

    def critical(self, processes: int, comparisons: int) -> float:
        """The quantile of Student's t: half the width of the interval in standard errors."""
        share = self.error / (comparisons * len(self.looks))
        return float(stats.t.ppf(1 - share, processes - 1))

    def check(self, comparisons: int) -> None:
        """Refuse a rule that could not detect must_see, before anything is measured.

        Raises:
            UnreachableError: the detectable slowdown at the usual spread exceeds must_see.
        """
        if self.looks[0] < 2:
            raise UnreachableError("the spread of one process is unknown: measure 5 or more.")
        seen = self.detectable(self.usual_spread, self.looks[-1], comparisons)
        if seen > self.must_see:
            raise UnreachableError(
                f"{self.looks[-1]} processes can only detect slowdowns from {seen:.1%}, but "
                f"{self.must_see:.1%} must be seen: measure more processes, or fewer configurations."
            )

    def detectable(self, spread: float, processes: int, comparisons: int) -> float:
        """The smallest slowdown that is called REGRESSED with probability POWER at this spread."""
        errors = _noncentrality(self.critical(processes, comparisons), processes - 1)
        return math.expm1(math.log1p(self.margin) + errors * spread / math.sqrt(processes))


@cache
def _noncentrality(critical: float, freedom: int) -> float:
    """How many standard errors above the margin a slowdown is detected with probability POWER."""

    def missing(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, freedom, noncentrality)) - POWER

    high = 2 * critical + 10
    while missing(high) < 0:
        high *= 2
    return float(optimize.brentq(missing, 0, high))


def change_in_process(
    blocks: Sequence[Mapping[str, Any]], channel: Channel, *, head: str = "head", base: str = "base"
) -> float | None:
    """One process's estimate of log(head / base).

    Args:
        blocks: in order; each has "arm", "palindrome", "throttled" and the channel's seconds.
        channel: which seconds.
        head: the arm that is judged.
        base: the arm that it is compared with.

    Returns:
        None if less than half of the palindromes are usable. A palindrome is left out if the device was
        throttled in a block of `base`, which the change cannot have caused. If it was throttled in `head`
        alone, the change may be the cause, and the palindrome is kept.
    """
    usable = {
        number: statistics.fmean(arms[head]) - statistics.fmean(arms[base])
        for number, arms in _palindromes(blocks, channel).items()
        if base in arms and head in arms
    }
    disturbed = {block["palindrome"] for block in blocks if block["arm"] == base and block["throttled"]}
    kept = [change for number, change in usable.items() if number not in disturbed]
    if not usable or 2 * len(kept) < len(usable):
        return None
    return statistics.median(kept)


def judge_changes(changes: Sequence[float | None], rule: Rule, *, comparisons: int, what: str) -> Judgement:
    """Judge one comparison by its processes.

    Args:
        changes: log(head / base) of each process; None for a process that is not usable.
        rule: the margins and error rates.
        comparisons: the number of such judgements in this run.
        what: the name of the channel, for the reason.
    """
    usable = [change for change in changes if change is not None]
    if len(usable) < rule.looks[0]:
        return Judgement(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{what}: {len(usable)} of {len(changes)} processes are usable, {rule.looks[0]} are "
            "needed; the others were throttled or lack blocks",
        )
    mean, spread = statistics.fmean(usable), statistics.stdev(usable)
    half = rule.critical(len(usable), comparisons) * spread / math.sqrt(len(usable))
    seen = rule.detectable(spread, len(usable), comparisons)
    return Judgement(
        verdict=_verdict(mean, half, rule),
        reason=f"{what} {_percent(mean)} ± {half:.1%} (margin {rule.margin:.1%}, {len(usable)} processes; "
        f"a slowdown of {seen:.1%} would have been detected)",
        ratio=math.exp(mean),
        uncertainty=half,
        detectable=seen,
    )


def _palindromes(blocks: Sequence[Mapping[str, Any]], channel: Channel) -> dict[int, dict[str, list[float]]]:
    """Log seconds by palindrome and arm."""
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for block in blocks:
        found[block["palindrome"]][block["arm"]].append(math.log(block[channel]))
    return found


def _verdict(mean: float, half: float, rule: Rule) -> Verdict:
    if mean - half > math.log1p(rule.margin):
        return Verdict.REGRESSED
    if mean + half < -math.log1p(rule.margin):
        return Verdict.IMPROVED
    return Verdict.PASS if mean + half < math.log1p(rule.must_see) else Verdict.INCONCLUSIVE


def _percent(change: float) -> str:
    return f"{abs(math.expm1(change)):.1%} {'slower' if change > 0 else 'faster'}"
