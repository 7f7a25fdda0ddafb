"""A claim, and what became of it in one run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from xenc.profiling.report import table

Found = tuple[float, str] | None
"""What was measured, and of what; None if it was not."""


class Measured(Protocol):
    """One run."""

    @property
    def rehearsal(self) -> bool:
        """Whether none of its numbers means anything."""
        ...


Run = TypeVar("Run", bound=Measured)


@dataclass(frozen=True, kw_only=True)
class Goal(Generic[Run]):
    """One claim.

    Attributes:
        name: what it is about.
        aim: the number to reach.
        stretch: a better one; None if there is none.
        at_most: whether less is better.
        unit: "x", "%", "s", "ms" or "" for counts.
        measured: reads it off a run.
    """

    name: str
    aim: float
    measured: Callable[[Run], Found]
    stretch: float | None = None
    at_most: bool = True
    unit: str = ""

    def reached(self, value: float, aim: float) -> bool:
        """Whether a value is as good as an aim."""
        return value <= aim if self.at_most else value >= aim

    def verdict(self, results: Run) -> str:
        """In words, with the distance where it falls short."""
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
        """A number with its unit."""
        match self.unit:
            case "%":
                return f"{value:.1%}"
            case "ms":
                return f"{1000 * value:.2f} ms"
            case "":
                return f"{value:,.0f}"
        return f"{value:.2f}{'x' if self.unit == 'x' else ' s'}"

    def row(self, results: Run) -> list[str]:
        """Name, aim, what was measured, of what, and the verdict."""
        found = self.measured(results)
        aim = f"{'at most' if self.at_most else 'at least'} {self.shown(self.aim)}"
        if self.stretch is not None:
            aim += f", stretch {self.shown(self.stretch)}"
        value, of = (self.shown(found[0]), found[1]) if found is not None else ("", "")
        return [self.name, aim, value, of, self.verdict(results)]


def goals_table(goals: Iterable[Goal[Run]], results: Run) -> str:
    """What became of each goal, in Markdown."""
    return table(["goal", "aim", "measured", "of", "verdict"], [goal.row(results) for goal in goals])
