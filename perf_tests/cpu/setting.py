"""The models and workloads that are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from perf_tests import models, msmarco, workloads
from perf_tests.ettin_models import GEOMETRIES, Geometry, stored
from perf_tests.workloads import Pair, Workload
from xenc import fastest_dtype


def _sized(pairs: int) -> tuple[Workload, ...]:
    sizes = {"pairs": pairs, "batch_size": 4}
    return workloads.seed(**sizes), workloads.short_query(batch_size=4), workloads.skewed(**sizes)


WORKLOADS = {workload.name: workload for workload in _sized(96)}


def _published(geometry: Geometry) -> Path:
    return stored(geometry).published


def _classifier(geometry: Geometry) -> Path:
    return stored(geometry).classifier


CASE_WORKLOADS = _sized(24)
"""The same, sized so that `make bench` takes minutes."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model and its work.

    Attributes:
        checkpoint: makes the model.
        classifier: makes the same weights as one model, of a checkpoint of several modules.
        workloads: a round is the same list for every row.
        rounds: each row is timed once in each.
        trials: passes of a peer in each batch size, to choose one.
        batch_sizes: of peers.
        fastest: the dtype that the processor is fastest in.
        threads: of every row.
        primed_on: pairs that a row scores before each turn.
        calibration_pairs: of a model that is quantized in advance.
        looked_into: the workload to profile; "" for none.
        rehearsal: the numbers mean nothing.
    """

    checkpoint: Callable[[], Path] = models.minilm
    classifier: Callable[[], Path] | None = None
    workloads: tuple[Workload, ...] = tuple(WORKLOADS.values())
    rounds: int = 7
    trials: int = 2
    batch_sizes: tuple[int, ...] = (4, 8, 16, 32)
    fastest: torch.dtype = field(default_factory=lambda: fastest_dtype("cpu"))
    threads: int = field(default_factory=torch.get_num_threads)
    primed_on: int = 16
    calibration_pairs: int = 100
    looked_into: str = "seed"
    rehearsal: bool = False

    @property
    def has_goals(self) -> bool:
        """Whether it is the model that the goals are set for."""
        return self.checkpoint is models.minilm

    def one_model(self) -> Path:
        """The checkpoint for plain transformers and for exports, which know nothing of several modules."""
        return (self.classifier or self.checkpoint)()

    def rounds_of(self, workload: Workload) -> list[list[Pair]]:
        return [workload.round(number) for number in range(self.rounds)]

    def trial_of(self, workload: Workload) -> list[Pair]:
        return workload.round(self.rounds)

    def calibration_of(self, workload: Workload) -> list[Pair]:
        return replace(workload, fresh=True, pairs_per_round=self.calibration_pairs).round(-2)


MODELS: Mapping[str, Mapping[str, Callable[[], Path]]] = {
    "minilm": {"checkpoint": models.minilm},
    "msmarco-minilm-l12": {"checkpoint": msmarco.msmarco_minilm},
    **{
        geometry.name: {
            "checkpoint": partial(_published, geometry), "classifier": partial(_classifier, geometry),
        }
        for geometry in GEOMETRIES
    },
}  # fmt: skip
"""What a `Setting` needs of each model."""


def chosen(names: Sequence[str], pairs: int | None) -> tuple[Workload, ...]:
    """Workloads by name, with another number of pairs if one is given."""
    found = (WORKLOADS[name] for name in names)
    return tuple(each if pairs is None else replace(each, pairs_per_round=pairs) for each in found)
