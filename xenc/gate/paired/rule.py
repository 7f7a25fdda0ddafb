"""Blocks of two revisions, interleaved in several processes -> is one slower? Pure: no torch, no files.

The model. In process p and palindrome i, with A and B the mean log seconds of the two blocks of each arm,

    B_pi - A_pi = d + u_p + e_pi,        u_p ~ N(0, tau^2),   e_pi independent of each other

where d is what the change costs, u_p what this process happens to do to one copy and not to the other
(where its code and its memory came to lie), and e_pi the noise of one palindrome. A palindrome (A B B A)
cancels what drifts in a straight line, and, a difference of neighbours, hardly sees the rest. Blocks of one
process share u_p, so more of them measure it better and do not average it away: the process is the unit.
Each gives one number, x_p, the median of its palindromes (on a shared machine some of them are far off), and
x_p ~ N(d, tau^2 + pi/2 x sigma^2 / n) are independent, provided that base and head take turns in being made
first: whoever is made later was found to be up to half a percent faster. So with P processes, mean m and
standard deviation s of the x_p, the one-sided confidence bounds of d are Student's

    m -/+ t(1 - a, P - 1) x s / sqrt(P)

REGRESSED     lower bound > margin       surely more than what is tolerated
IMPROVED      upper bound < -margin
PASS          upper bound < must_see     surely less than what must not pass
INCONCLUSIVE  otherwise

The error. `error` is the chance that anything at all is falsely called REGRESSED, and that something as slow
as must_see passes; that anything is falsely called IMPROVED is as much again. It is divided by the number of
comparisons (Bonferroni; each reports before the others are known) and by the number of looks: after each of
`looks` processes the run may end, if everything is decided, and what looking more than once costs is paid in
advance.
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

from ...errors import XencError
from ..verdict import Judgement, Verdict

Channel = Literal["wall_s", "device_s"]

CHANNEL_NAMES: Final[Mapping[Channel, str]] = {"wall_s": "wall time", "device_s": "device time"}
"""What is timed, in words."""

POWER: Final = 0.95
"""How surely a slowdown is seen that is called detectable."""


class UnreachableError(XencError):
    """A rule that could not call anything REGRESSED, however slow it was."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When a change counts.

    Attributes:
        margin: slowdown that is tolerated, as a fraction.
        must_see: slowdown that must not pass.
        looks: after how many processes the run may end; the last is the most there are.
        error: chance of any false verdict in the whole run.
        usual_spread: standard deviation between processes that the looks were chosen for, as a fraction.
    """

    margin: float
    must_see: float
    looks: tuple[int, ...] = (5, 8)
    error: float = 0.01
    usual_spread: float = 0.005

    def critical(self, processes: int, comparisons: int) -> float:
        """Student's t beyond which a bound lies, in standard errors."""
        share = self.error / (comparisons * len(self.looks))
        return float(stats.t.ppf(1 - share, processes - 1))

    def check(self, comparisons: int) -> None:
        """Refuse to measure what could not be judged.

        Raises:
            UnreachableError: at the usual spread not even must_see could be told from the margin.
        """
        if self.looks[0] < 2:
            raise UnreachableError(f"{self.looks[0]} process has no spread: measure 5 or more.")
        seen = self.detectable(self.usual_spread, self.looks[-1], comparisons)
        if seen > self.must_see:
            raise UnreachableError(
                f"{self.looks[-1]} processes could not call a slowdown below {seen:.1%} REGRESSED, and "
                f"{self.must_see:.1%} must be seen: measure more processes, or fewer configurations."
            )

    def detectable(self, spread: float, processes: int, comparisons: int) -> float:
        """The smallest slowdown that is called REGRESSED with probability POWER at this spread."""
        errors = _noncentrality(self.critical(processes, comparisons), processes - 1)
        return math.expm1(math.log1p(self.margin) + errors * spread / math.sqrt(processes))


@cache
def _noncentrality(critical: float, freedom: int) -> float:
    """How many standard errors beyond the margin a slowdown lies that POWER of all runs call REGRESSED."""

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
        base: the arm that it is judged by.

    Returns:
        None if less than half of the palindromes can be used. A palindrome is left out if the device was
        throttled while it ran `base`: then something else did it. If it was throttled in `head` alone, the
        change may have done it, and it counts.
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
        changes: log(head / base) of each process that ran; None where it could not be used.
        rule: the margins and the errors.
        comparisons: how many such judgements this run makes.
        what: what was timed, for the reason.
    """
    usable = [change for change in changes if change is not None]
    if len(usable) < rule.looks[0]:
        return Judgement(
            verdict=Verdict.INCONCLUSIVE,
            reason=f"{what}: {len(usable)} of {len(changes)} processes could be used, {rule.looks[0]} are "
            "needed; the others were throttled or have no such blocks",
        )
    mean, spread = statistics.fmean(usable), statistics.stdev(usable)
    half = rule.critical(len(usable), comparisons) * spread / math.sqrt(len(usable))
    seen = rule.detectable(spread, len(usable), comparisons)
    return Judgement(
        verdict=_verdict(mean, half, rule),
        reason=f"{what} {_percent(mean)} ± {half:.1%} (margin {rule.margin:.1%}, {len(usable)} processes; "
        f"a slowdown of {seen:.1%} would have been seen)",
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
