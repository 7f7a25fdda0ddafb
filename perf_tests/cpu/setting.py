"""What is measured on what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch

from perf_tests import models, workloads
from perf_tests.workloads import Pair, Workload
from xenc import fastest_dtype

WORKLOADS: Final = {
    workload.name: workload
    for workload in (
        workloads.seed(pairs=96, batch_size=4), workloads.short_query(batch_size=4),
        workloads.skewed(pairs=96, batch_size=4),
    )
}  # fmt: skip

CASE_WORKLOADS: Final = (
    workloads.seed(pairs=24, batch_size=4), workloads.short_query(batch_size=4),
    workloads.skewed(pairs=24, batch_size=4),
)  # fmt: skip
"""The same, sized so that `make bench` takes minutes."""

CALIBRATION_PAIRS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model and what it is given to do.

    Attributes:
        checkpoint: makes the model.
        workloads: what rows score; a round is the same list for every row.
        rounds: each row is timed once in each.
        trials: how often a peer is tried in each batch size before.
        batch_sizes: those that peers are tried in.
        fastest: the dtype that the processor is fastest in.
        threads: of every row.
        primed_on: pairs that a row scores before each turn.
        calibration_pairs: of a model that is quantised ahead.
        looked_into: the workload of which it is asked where the time goes; "" for none.
        rehearsal: whether no number means anything.
    """

    checkpoint: Callable[[], Path] = models.minilm
    workloads: tuple[Workload, ...] = tuple(WORKLOADS.values())
    rounds: int = 7
    trials: int = 2
    batch_sizes: tuple[int, ...] = (4, 8, 16, 32)
    fastest: torch.dtype = field(default_factory=lambda: fastest_dtype("cpu"))
    threads: int = field(default_factory=torch.get_num_threads)
    primed_on: int = 16
    calibration_pairs: int = CALIBRATION_PAIRS
    looked_into: str = "seed"
    rehearsal: bool = False

    def rounds_of(self, workload: Workload) -> list[list[Pair]]:
        """The lists that every row scores."""
        return [workload.round(number) for number in range(self.rounds)]

    def trial_of(self, workload: Workload) -> list[Pair]:
        """A list of the same kind, which no round has unless they are all the same."""
        return workload.round(self.rounds)

    def calibration_of(self, workload: Workload) -> list[Pair]:
        """Texts of the workload's kind from another seed."""
        return replace(workload, fresh=True, pairs_per_round=self.calibration_pairs).round(-2)


def chosen(names: Sequence[str], pairs: int | None) -> tuple[Workload, ...]:
    """Workloads by name, with another number of pairs if one is given."""
    found = (WORKLOADS[name] for name in names)
    return tuple(each if pairs is None else replace(each, pairs_per_round=pairs) for each in found)
