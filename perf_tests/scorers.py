"""Warmed-up models, one per device and graph settings, and their error against the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch

from correctness_tests import oracle
from perf_tests import models
from perf_tests.configurations import PEER, Configuration
from perf_tests.faults import inject
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder
from xenc.compiled import WARMUP_PASSES

DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}

FLOAT32_TOLERANCE = 1e-4
"""On logits of unit spread."""

CHECKED_PAIRS = 8


@cache
def checkpoint(device: str) -> Path:
    """The checkpoint that a device is measured with."""
    return models.minilm() if device == "cpu" else models.xlm_roberta_base()


@dataclass(kw_only=True)
class Scorer:
    """One configuration, ready to be timed: no shape it will see is left to compile."""

    model: Any
    batch_size: int
    graphs: int = 0
    warmup_s: float = 0.0

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        scores: np.ndarray = self.model.predict(
            pairs,
            batch_size=self.batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return scores


@dataclass
class Scorers:
    """Makes scorers; executions that differ in order only share one model and its graphs."""

    fault: str | None = None
    _models: dict[tuple[object, ...], CrossEncoder] = field(default_factory=dict)
    _warmups_s: dict[tuple[object, ...], float] = field(default_factory=dict)

    def ready(self, configuration: Configuration) -> Scorer:
        """A warmed-up scorer."""
        batch_size = configuration.workload.batch_size
        if configuration.name == PEER:
            return Scorer(model=_peer(configuration.device), batch_size=batch_size)
        execution = PRESETS[configuration.name]
        key = (configuration.device, execution.layout, *execution.graph_settings)
        if key not in self._models:
            self._models[key] = CrossEncoder(
                str(checkpoint(configuration.device)),
                execution=execution,
                **_placement(configuration.device),
            )
        model = self._models[key]
        model.execution = execution
        warm = (*key, batch_size)
        if warm not in self._warmups_s:
            # only CUDA graphs need the further passes; on two cores they would take minutes
            passes = WARMUP_PASSES if configuration.device == "cuda" else 1
            self._warmups_s[warm] = model.warmup(batch_size, passes=passes).seconds
        inject(self.fault, model)
        compiled = model.pipeline.compiled
        graphs = compiled.graphs if compiled is not None else 0
        return Scorer(model=model, batch_size=batch_size, graphs=graphs, warmup_s=self._warmups_s[warm])


@cache
def _peer(device: str) -> sentence_transformers.CrossEncoder:
    return sentence_transformers.CrossEncoder(str(checkpoint(device)), **_placement(device))


def _placement(device: str) -> dict[str, Any]:
    return {"device": device, "max_length": 512, "model_kwargs": {"dtype": DTYPES[device]}}


@dataclass(frozen=True, kw_only=True)
class OutputError:
    """Largest distance from the oracle over a few pairs, and how much of it is tolerated."""

    error: float
    tolerance: float


def output_error(scorer: Scorer, configuration: Configuration, pairs: Sequence[Pair]) -> OutputError:
    """Compare with the float32 oracle on the shortest, the longest and some pairs between.

    In a lower precision twice the error of plain eager execution in that precision is tolerated, and one
    unit in the last place of the largest logit.
    """
    by_length = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
    step = max(1, len(by_length) // (CHECKED_PAIRS - 1))
    checked = (*by_length[::step][: CHECKED_PAIRS - 1], by_length[-1])
    device, dtype = configuration.device, DTYPES[configuration.device]
    exact = _oracle_logits(device, torch.float32, checked)
    error = float(np.abs(scorer.logits(checked) - exact).max())
    if dtype == torch.float32:
        return OutputError(error=error, tolerance=FLOAT32_TOLERANCE)
    eager = float(np.abs(_oracle_logits(device, dtype, checked) - exact).max())
    band = torch.finfo(dtype).eps * float(np.abs(exact).max())
    return OutputError(error=error, tolerance=2 * eager + band)


@cache
def _oracle_logits(device: str, dtype: torch.dtype, pairs: tuple[Pair, ...]) -> np.ndarray:
    return oracle.logits(checkpoint(device), pairs, max_length=512, device=device, dtype=dtype)
