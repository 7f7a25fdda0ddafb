"""Results and verdicts of a paired run -> the rows of its picture, without matplotlib."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from ..verdict import Judgement, Verdict
from .report import change, controls_held, exact_changes, label, telling
from .rule import CHANNEL_NAMES, Channel, Rule, change_in_process

if TYPE_CHECKING:
    from .verdicts import Control, PairedVerdicts

Dots = tuple[list[float], list[float]]
"""Changes in %: of each palindrome, and of each process."""

GREY: Final = "#6e7781"

COLORS: Final[Mapping[Verdict, str]] = {
    Verdict.PASS: "#1a7f37",
    Verdict.IMPROVED: "#1f6feb",
    Verdict.REGRESSED: "#cf222e",
    Verdict.INCONCLUSIVE: "#bc6a00",
}

_WIDEST: Final = 4
"""The axis ends at this multiple of must_see at most; values beyond become arrows at the edge."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the picture.

    Attributes:
        label: the text at its left.
        rule: its margins.
        timed: the judgements of its times.
        dots: the changes that these come from.
        says: the verdict, at its right.
        detail: the grounds, below the verdict.
        color: of the verdict.
        control: whether it is a control.
        counts: whether its times are judged.
    """

    label: str
    rule: Rule
    timed: Mapping[Channel, Judgement]
    dots: Mapping[Channel, Dots]
    says: str
    detail: str
    color: str
    control: bool = False
    counts: bool = False

    def color_of(self, channel: Channel) -> str:
        """The colour of a channel's own verdict; grey if times are not judged."""
        return COLORS[self.timed[channel].verdict] if self.counts and channel in self.timed else GREY

    def bounds(self, channel: Channel) -> tuple[float, float, float] | None:
        """Lower bound, mean and upper bound in %; None if the channel has none."""
        timed = self.timed.get(channel)
        if timed is None or timed.ratio is None or timed.uncertainty is None:
            return None
        mean = math.log(timed.ratio)
        low, middle, high = _percent([mean - timed.uncertainty, mean, mean + timed.uncertainty])
        return low, middle, high


def rows_of(
    results: Sequence[Mapping[str, Any]], verdicts: PairedVerdicts, rules: Mapping[str, Rule]
) -> list[Row]:
    """The rows of the configurations, then those of the controls."""
    rows = [_configuration(results, verdicts, name, rule) for name, rule in rules.items()]
    return [*rows, *_controls(results, verdicts, rules)]


def limits_of(rows: Sequence[Row]) -> tuple[float, float]:
    """The range of the axis in %: the bounds and most dots of all rows, within `_WIDEST` times must_see."""
    must_see = 100 * max(row.rule.must_see for row in rows)
    shown = [-0.8 * must_see, 1.3 * must_see]
    for row in rows:
        for channel, (palindromes, processes) in row.dots.items():
            shown += [*(row.bounds(channel) or ()), *processes]
            if len(palindromes) > 1:
                cuts = statistics.quantiles(palindromes, n=20)
                shown += [cuts[0], cuts[-1]]
    widest = _WIDEST * must_see
    return max(min(shown), -widest) - 0.1 * must_see, min(max(shown), widest) + 0.1 * must_see


def _configuration(
    results: Sequence[Mapping[str, Any]], verdicts: PairedVerdicts, name: str, rule: Rule
) -> Row:
    judgement = verdicts.configurations[name]
    told, exact = telling(verdicts, name), exact_changes(verdicts, name)
    if told:
        detail = f"{change(told[1])} {CHANNEL_NAMES[told[0]].removesuffix(' time')}"
    elif exact:
        detail = exact[0]
    else:
        detail = "" if controls_held(verdicts) else "the controls failed"
    return Row(
        label=label(name),
        rule=rule,
        timed={c: verdicts.timed[name, c] for c in CHANNEL_NAMES if (name, c) in verdicts.timed},
        dots=_dots(_blocks(results, name), "head", "base"),
        says=str(judgement.verdict),
        detail=textwrap.shorten(detail, 26, placeholder=" ..."),
        color=COLORS.get(judgement.verdict, GREY),
        counts=controls_held(verdicts) and judgement.verdict is not Verdict.NOT_MEASURED,
    )


def _controls(
    results: Sequence[Mapping[str, Any]], verdicts: PairedVerdicts, rules: Mapping[str, Rule]
) -> Iterator[Row]:
    """One row for each control, with both channels."""
    found: dict[tuple[str, tuple[str, str]], dict[Channel, Control]] = {}
    for control in verdicts.controls:
        found.setdefault((control.configuration, control.arms), {})[control.channel] = control
    for (name, arms), mine in found.items():
        yield _control(mine, rules[name], _dots(_blocks(results, name), *arms))


def _control(mine: Mapping[Channel, Control], rule: Rule, dots: Mapping[Channel, Dots]) -> Row:
    failed = [control for control in mine.values() if not control.held]
    told = (failed or list(mine.values()))[0]
    return Row(
        label=f"control: {told.name}",
        rule=rule,
        dots=dots,
        timed={channel: control.judgement for channel, control in mine.items()},
        says="FAILED" if failed else "as expected",
        detail=f"{told.judgement.verdict}" + (f", not {told.expected}" if failed else ""),
        color=COLORS[Verdict.REGRESSED] if failed else GREY,
        control=True,
    )


def _blocks(results: Sequence[Mapping[str, Any]], name: str) -> list[Sequence[Mapping[str, Any]]]:
    """The blocks of each process."""
    return [result["configurations"][name]["blocks"] for result in results]


def _dots(processes: Sequence[Sequence[Mapping[str, Any]]], head: str, base: str) -> dict[Channel, Dots]:
    """The changes of usable palindromes and processes, by channel."""
    found: dict[Channel, Dots] = {}
    for channel in CHANNEL_NAMES:
        whole = [change_in_process(blocks, channel, head=head, base=base) for blocks in processes]
        each = [
            change_in_process(blocks, channel, head=head, base=base)
            for process in processes
            for blocks in _by_palindrome(process)
        ]
        found[channel] = _percent(each), _percent(whole)
    return found


def _by_palindrome(blocks: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    return [list(found) for _, found in groupby(blocks, key=itemgetter("palindrome"))]


def _percent(changes: Sequence[float | None]) -> list[float]:
    return [100 * math.expm1(each) for each in changes if each is not None]
