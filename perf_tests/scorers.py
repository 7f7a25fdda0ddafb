"""Warmed-up models, one per device and graph settings, and their error against the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from correctness_tests import oracle
from perf_tests import models, peers
from perf_tests.configurations import REFERENCE, Configuration
from perf_tests.device_thread import on_device_thread
from perf_tests.faults import inject
from perf_tests.peers.peer import predicted
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder
from xenc.profiling.kernels import name_compiled_kernels
from xenc.text.tokens import TokenizedPairs

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
    """One configuration, ready to be timed: no shape it will see is left to compile.

    Either xenc's model or a peer.
    """

    batch_size: int
    model: CrossEncoder | None = None
    peer: peers.Peer | None = None
    graphs: int = 0
    warmup_s: float = 0.0
    wastes: list[float] = field(default_factory=list)
    """Of each list of pairs scored so far."""

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        if self.peer is not None:
            return self.peer.logits(pairs)
        assert self.model is not None
        scores = predicted(self.model, pairs, self.batch_size)
        if self.model.last_report is not None:
            self.wastes.append(self.model.last_report.waste)
        return scores


@dataclass
class Scorers:
    """Makes scorers. Compiled executions that differ in order only share one model and its graphs.

    Attributes:
        fault: what to break in the code under measurement; see `faults.inject`.
        named_kernels: let a profiler see the CPU's compiled kernels.
    """

    fault: str | None = None
    named_kernels: bool = False
    _models: dict[tuple[object, ...], CrossEncoder] = field(default_factory=dict)
    _warmups_s: dict[tuple[object, ...], float] = field(default_factory=dict)

    def ready(self, configuration: Configuration) -> Scorer:
        """A warmed-up scorer of a preset or of one of `peers.FACTORIES`, by name."""
        if configuration.name in peers.FACTORIES:
            batch_size = configuration.workload.batch_size
            peer = _peer(configuration.name, configuration.device, batch_size)
            return Scorer(peer=peer, batch_size=batch_size)
        execution = PRESETS[configuration.name]
        shared = execution.graph_settings if execution.compile_mode else (configuration.name,)
        return self._warm((configuration.device, *shared), configuration)

    @contextmanager
    def broken(self, scorer: Scorer) -> Iterator[None]:
        """Put the session's fault into a scorer while the block runs; nothing, if there is no fault."""
        if self.fault is None or scorer.model is None:
            yield
            return
        pipeline = scorer.model.pipeline
        sound = pipeline.forward
        inject(self.fault, scorer.model)
        try:
            yield
        finally:
            pipeline.forward = sound

    def reference(self, configuration: Configuration) -> Scorer:
        """A scorer, never broken, of what speed-ups on this configuration's workload are over."""
        reference = replace(configuration, name=REFERENCE)
        return self._warm((configuration.device, "reference"), reference)

    def _warm(self, key: tuple[object, ...], configuration: Configuration) -> Scorer:
        device, batch_size = configuration.device, configuration.workload.batch_size
        if key not in self._models:
            self._models[key] = CrossEncoder(str(checkpoint(device)), **_placement(device))
            if self.named_kernels and device == "cpu":
                on_device_thread(self._models[key])(name_compiled_kernels)
        model = self._models[key]
        model.execution = PRESETS[configuration.name]
        if (*key, batch_size) not in self._warmups_s:
            # only CUDA graphs need the further passes; on two cores they would take minutes
            passes = None
            self._warmups_s[*key, batch_size] = model.warmup(batch_size, passes=passes).seconds
        check_runs_as(model, PRESETS[configuration.name], configuration.name)
        compiled = model.pipeline.compiled
        return Scorer(
            model=model,
            batch_size=batch_size,
            graphs=compiled.graphs if compiled is not None else 0,
            warmup_s=self._warmups_s[*key, batch_size],
        )


def check_runs_as(model: Any, execution: Any, name: str) -> None:
    """A model of any revision's runs as it was told, and not as what a machine or a model allows for instead.

    Raises:
        RuntimeError: it does not.
    """
    if model.execution != execution:
        raise RuntimeError(f"{name} runs as {model.execution} and would be timed under a wrong name")


@cache
def _peer(name: str, device: str, batch_size: int) -> peers.Peer:
    return peers.make(name, checkpoint(device), device, DTYPES[device], batch_size)


def _placement(device: str) -> dict[str, Any]:
    return {"device": device, "max_length": 512, "model_kwargs": {"dtype": DTYPES[device]}}


@torch.inference_mode()
def laid_out(model: CrossEncoder, pairs: Sequence[Pair], batch_size: int) -> tuple[TokenizedPairs, list[Any]]:
    """The tokens of a request, and its batches on the device, for `model.pipeline.run`."""
    pipeline = model.pipeline
    tokens = pipeline.tokenize(pairs)
    plan = pipeline.plan(tokens, batch_size=batch_size)
    return tokens, [pipeline.collator.collate(tokens.of_rows(batch.rows), batch) for batch in plan.batches]


@dataclass(frozen=True, kw_only=True)
class OutputError:
    """Largest distance from the oracle over a few pairs, and how much of it is tolerated."""

    error: float
    tolerance: float


def output_error(
    logits: np.ndarray,
    pairs: Sequence[Pair],
    *,
    model: Path,
    device: str,
    max_length: int,
    dtype: torch.dtype,
    quantize: str | None = None,
) -> OutputError:
    """Compare logits [N] of N pairs with the float32 oracle's, on some short, long and middling pairs.

    In a lower precision than float32 twice the error of plain eager execution in that precision is
    tolerated, and one unit in the last place of the largest logit; quantised, twice that of torchao's own
    model run eagerly, and one step of the largest logit.
    """
    by_length = sorted(range(len(pairs)), key=lambda row: len(pairs[row][0]) + len(pairs[row][1]))
    stride = max(1, len(by_length) // (CHECKED_PAIRS - 1))
    rows = [*by_length[::stride][: CHECKED_PAIRS - 1], by_length[-1]]
    checked = tuple(pairs[row] for row in rows)
    exact = _oracle_logits(model, device, torch.float32, checked, max_length)
    error = float(np.abs(logits[rows] - exact).max())
    if dtype == torch.float32 and quantize is None:
        return OutputError(error=error, tolerance=FLOAT32_TOLERANCE)
    eager = _oracle_logits(model, device, dtype, checked, max_length, quantize)
    step = _STEPS.get(quantize, torch.finfo(dtype).eps)
    tolerance = 2 * float(np.abs(eager - exact).max()) + step * float(np.abs(exact).max())
    return OutputError(error=error, tolerance=tolerance)


_STEPS: Final[dict[str | None, float]] = {"int8": 1 / 127, "float8": torch.finfo(torch.float8_e4m3fn).eps}
"""Of the largest number that is quantised."""


@cache
def _oracle_logits(
    model: Path,
    device: str,
    dtype: torch.dtype,
    pairs: tuple[Pair, ...],
    max_length: int,
    quantize: str | None = None,
) -> np.ndarray:
    return oracle.logits(model, pairs, max_length=max_length, device=device, dtype=dtype, quantize=quantize)
