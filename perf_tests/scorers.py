"""Warmed-up models, one per device and graph settings, and their error against the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from correctness_tests import oracle
from perf_tests import models, peers
from perf_tests.configurations import REFERENCE, Configuration
from perf_tests.device_thread import on_device_thread
from perf_tests.faults import inject
from perf_tests.peers.peer import predicted
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder, Execution
from xenc.profiling.kernels import name_compiled_kernels
from xenc.text.tokens import TokenizedPairs

DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}

FLOAT32_TOLERANCE = 1e-4
"""On logits of unit spread."""

CHECKED_PAIRS = 64
"""The largest error of fewer varies too much from kernel to kernel to be held against a tolerance."""


@cache
def checkpoint(device: str) -> Path:
    """The checkpoint that a device is measured with."""
    return models.minilm() if device == "cpu" else models.xlm_roberta_base()


@dataclass(kw_only=True)
class Scorer:
    """Xenc's model or a peer, ready to be timed: no shape that it will see is left to compile."""

    batch_size: int
    model: CrossEncoder | None = None
    peer: peers.Peer | None = None
    graphs: int = 0
    warmup_s: float = 0.0
    wastes: list[float] = field(default_factory=list)
    """Of each list of pairs scored so far."""

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        if self.model is None:
            return self.peer.logits(pairs)
        scores = predicted(self.model, pairs, self.batch_size)
        if self.model.last_report is not None:
            self.wastes.append(self.model.last_report.waste)
        return scores


def warmed_up(
    model: CrossEncoder, execution: Execution, name: str, batch_size: int, warmup_s: float | None = None
) -> Scorer:
    """A scorer of xenc's model under an execution, warmed up unless the seconds of an earlier one are given.

    Raises:
        RuntimeError: the model does not run as it was told.
    """
    model.execution = execution
    if warmup_s is None:
        warmup_s = model.warmup(batch_size).seconds
    check_runs_as(model, execution, name)
    compiled = model.pipeline.compiled
    graphs = 0 if compiled is None else compiled.graphs
    return Scorer(model=model, batch_size=batch_size, graphs=graphs, warmup_s=warmup_s)


def check_runs_as(model: Any, execution: Any, name: str) -> None:
    """Refuse a model of any revision that runs otherwise than told, as a machine or a model may require.

    Raises:
        RuntimeError: it does.
    """
    if model.execution != execution:
        raise RuntimeError(f"{name} runs as {model.execution} and would be timed under a wrong name")


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
        name, device = configuration.name, configuration.device
        if name in peers.FACTORIES:
            batch_size = configuration.workload.batch_size
            made = peers.make(name, checkpoint(device), device, DTYPES[device], batch_size)
            return Scorer(peer=made, batch_size=batch_size)
        execution = PRESETS[name]
        shared = execution.graph_settings if execution.compile_mode else (name,)
        return self._warm((device, *shared), name, configuration)

    def reference(self, configuration: Configuration) -> Scorer:
        """A scorer, never broken, of what speed-ups on this configuration's workload are over."""
        return self._warm((configuration.device, "reference"), REFERENCE, configuration)

    @contextmanager
    def broken(self, scorer: Scorer) -> Iterator[None]:
        """Put the session's fault, if there is one, into a scorer while the block runs."""
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

    def _warm(self, key: tuple[object, ...], name: str, configuration: Configuration) -> Scorer:
        device, batch_size = configuration.device, configuration.workload.batch_size
        if key not in self._models:
            self._models[key] = CrossEncoder(
                str(checkpoint(device)), device=device, max_length=512, model_kwargs={"dtype": DTYPES[device]}
            )
            if self.named_kernels and device == "cpu":
                on_device_thread(self._models[key])(name_compiled_kernels)
        known = self._warmups_s.get((*key, batch_size))
        scorer = warmed_up(self._models[key], PRESETS[name], name, batch_size, known)
        self._warmups_s[*key, batch_size] = scorer.warmup_s
        return scorer


@torch.inference_mode()
def laid_out(model: CrossEncoder, pairs: Sequence[Pair], batch_size: int) -> tuple[TokenizedPairs, list[Any]]:
    """The tokens of a request, and its batches on the device, for `model.pipeline.run`."""
    pipeline = model.pipeline
    tokens = pipeline.tokenize(pairs)
    plan = pipeline.plan(tokens, batch_size=batch_size)
    return tokens, [pipeline.collator.collate(tokens.of_rows(batch.rows), batch) for batch in plan.batches]


class OutputError(NamedTuple):
    """Largest distance from the oracle over a few pairs, and how much of it is tolerated."""

    error: float
    tolerance: float


def output_error(
    logits: np.ndarray, pairs: Sequence[Pair], *, model: Path, device: str, max_length: int,
    dtype: torch.dtype, quantize: str | None = None,
) -> OutputError:  # fmt: skip
    """Compare logits [N] of N pairs with the float32 oracle's, on some short, long and middling pairs."""
    by_length = sorted(range(len(pairs)), key=lambda row: len(pairs[row][0]) + len(pairs[row][1]))
    stride = max(1, len(by_length) // (CHECKED_PAIRS - 1))
    rows = [*by_length[::stride][: CHECKED_PAIRS - 1], by_length[-1]]
    some = tuple(pairs[row] for row in rows)
    return judged(logits[rows], partial(oracle_logits, model, device, some, max_length), dtype, quantize)


def judged(
    logits: np.ndarray, plain: Callable[..., np.ndarray], dtype: torch.dtype, quantize: str | None
) -> OutputError:
    """Compare logits [N] with those of plain execution in float32.

    Tolerated in a lower precision than float32: twice the error of plain eager execution in that precision,
    and one unit in the last place of the largest logit; quantized, twice that of torchao's own model run
    eagerly, and one step of the largest logit.

    Args:
        logits: to be judged, in `dtype`'s precision, or quantized.
        plain: (dtype, quantize) -> logits [N] of the same pairs, each scored alone and eagerly.
        dtype, quantize: what the model computes in.
    """
    exact = plain(torch.float32, None)
    error = float(np.abs(logits - exact).max())
    if dtype == torch.float32 and quantize is None:
        return OutputError(error, FLOAT32_TOLERANCE)
    step = _STEPS.get(quantize, torch.finfo(dtype).eps)
    own = float(np.abs(plain(dtype, quantize) - exact).max())
    return OutputError(error, 2 * own + step * float(np.abs(exact).max()))


_STEPS = {"int8": 1 / 127, "float8": torch.finfo(torch.float8_e4m3fn).eps}
"""Of the largest number that is quantized."""


@cache
def oracle_logits(
    model: Path, device: str, pairs: tuple[Pair, ...], max_length: int, dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
) -> np.ndarray:  # fmt: skip
    """[N] logits of plain transformers, one pair at a time."""
    return oracle.logits(model, pairs, max_length=max_length, device=device, dtype=dtype, quantize=quantize)
