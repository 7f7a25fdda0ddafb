"""A claim, and what became of it in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from perf_tests.side_by_side.steps import Kept
from xenc.profiling.report import table

Found = tuple[float, str] | None
"""What was measured, and of what; None if it was not."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One claim.

    Attributes:
        name: what it is about.
        aim, stretch: the number to reach, and a better one.
        at_most: whether less is better.
        unit: "x", "%", "s", "ms" or "" for counts.
        measured: reads it off a run.
    """

    name: str
    aim: float
    measured: Callable[..., Found]
    stretch: float | None = None
    at_most: bool = True
    unit: str = ""

    def reached(self, value: float, aim: float) -> bool:
        return value <= aim if self.at_most else value >= aim

    def verdict(self, results: Kept) -> str:
        found = self.measured(results)
        if results.rehearsal:
            return "rehearsal" if found is not None else "NOT MEASURED"
        if found is None:
            return "NOT MEASURED"
        value, _ = found
        if self.stretch is not None and self.reached(value, self.stretch):
            return "reached, the stretch too"
        if self.reached(value, self.aim):
            return "reached"
        if not self.aim:
            return "MISSED"
        return f"MISSED by {abs(value - self.aim) / self.aim:.0%}"

    def shown(self, value: float) -> str:
        match self.unit:
            case "%":
                return f"{value:.1%}"
            case "ms":
                return f"{1000 * value:.2f} ms"
            case "":
                return f"{value:,.0f}"
        return f"{value:.2f}{'x' if self.unit == 'x' else ' s'}"

    def row(self, results: Kept) -> list[str]:
        found = self.measured(results)
        aim = f"{'at most' if self.at_most else 'at least'} {self.shown(self.aim)}"
        if self.stretch is not None:
            aim += f", stretch {self.shown(self.stretch)}"
        value, of = (self.shown(found[0]), found[1]) if found is not None else ("", "")
        return [self.name, aim, value, of, self.verdict(results)]


def goals_table(goals: Iterable[Goal], results: Kept) -> str:
    """What became of each goal, in Markdown."""
    return table(["goal", "aim", "measured", "of", "verdict"], [goal.row(results) for goal in goals])
