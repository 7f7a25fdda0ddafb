"""All that one run measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from perf_tests.side_by_side.steps import Kept
from perf_tests.side_by_side.turns import Timed


@dataclass(kw_only=True)
class Found:
    """One workload.

    Attributes:
        name, fingerprint: the workload's.
        round_pairs, round_tokens: of each round, real tokens alone.
        rows: the table; a row's batch size is the best of its trials.
        absent: rows that cannot run here, and why.
        trials: by row and batch size, the seconds of the passes that the batch size was chosen by.
        attention_share: by row, what attention took of a traced pass.
        products_share: by row, what the encoder's matrix products alone take of the row's time.
    """

    name: str
    fingerprint: str = ""
    round_pairs: list[int] = field(default_factory=list)
    round_tokens: list[int] = field(default_factory=list)
    rows: list[Timed] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    trials: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    attention_share: dict[str, float] = field(default_factory=dict)
    products_share: dict[str, float] = field(default_factory=dict)

    def row(self, name: str) -> Timed:
        """The row of a name, whatever became of it."""
        return next(row for row in self.rows if row.name == name)

    def timed(self, name: str) -> Timed | None:
        """The row of a name, if it was timed."""
        rows = (row for row in self.rows if row.name == name and row.problem is None and row.seconds)
        return next(rows, None)

    def ours(self, name: str) -> Timed | None:
        """The same of xenc, if it proves anything: it answered rightly and compiled nothing meanwhile."""
        row = self.timed(name)
        return row if row is not None and row.stands else None

    def fastest(self, *names: str, ours: bool = False) -> Timed | None:
        """The fastest of some rows."""
        found = [row for name in names if (row := self.ours(name) if ours else self.timed(name)) is not None]
        return min(found, key=lambda row: statistics.median(row.seconds), default=None)


@dataclass(kw_only=True)
class Results(Kept):
    """One run; a row that is absent is no problem.

    Attributes:
        model: the checkpoint's name.
        has_goals: whether it is the model that the goals are set for.
        workloads: by name.
    """

    model: str = ""
    has_goals: bool = True
    workloads: dict[str, Found] = field(default_factory=dict)
