"""The compile wrapper: warm up every shape, then let nothing compile unnoticed.

torch.compile caches graphs by code object, so two wrappers of one function would share graphs, even under
other settings. Each `CompiledForward` therefore compiles a copy of `classify` that is its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .collate import Collator, PaddedBatch
from .errors import CompileError
from .execution import Execution
from .forward import classify
from .watch import FULLGRAPH_PREFIX, cached_graphs, last_recompile_reason

logger = logging.getLogger(__name__)

WARMUP_PASSES: Final = 3
"""CUDA-graph trees run a shape once, then record it, and only then replay it."""


@dataclass(frozen=True, kw_only=True)
class WarmupReport:
    """What a warm-up did: shapes [B, L] run, graphs compiled, and seconds taken, compilation included."""

    shapes: tuple[tuple[int, int], ...]
    graphs: int
    seconds: float


class CompiledForward:
    """A model's forward pass under torch.compile(fullgraph=True).

    Before `warmup` it compiles as torch.compile does. Afterwards a compilation is an error in strict mode
    and a warning with the guard's reason otherwise.
    """

    def __init__(self, model: PreTrainedModel, execution: Execution) -> None:
        self._model = model
        self.strict = execution.strict
        self._dynamic = execution.dynamic
        self._own_classify = _own_copy(classify)
        self._compiled = torch.compile(
            self._own_classify,
            fullgraph=True,
            backend="inductor",
            mode=execution.compile_mode,
            dynamic=execution.dynamic,
        )
        self._replays_cudagraphs = model.device.type == "cuda" and execution.compile_mode in (
            "reduce-overhead",
            "max-autotune",
        )
        self._warm_shapes: set[tuple[int, int]] = set()
        self._warned = False

    @property
    def graphs(self) -> int:
        """Graphs compiled so far for this wrapper alone."""
        return cached_graphs(self._own_classify.__code__)

    def __call__(self, batch: PaddedBatch) -> Tensor:
        """Logits [B, C] of a batch; see `forward.classify`.

        Raises:
            CompileError: something compiled after warm-up, in strict mode.
        """
        if not self._warm_shapes:
            return self._run(batch)
        graphs_before = self.graphs
        logits = self._run(batch)
        if self.graphs > graphs_before:
            self._report_late(f"compiled: {last_recompile_reason(self._own_classify.__name__)}")
        elif self._replays_cudagraphs and batch.shape not in self._warm_shapes:
            self._report_late("recorded a CUDA graph")
        return logits

    def warmup(
        self, shapes: Sequence[tuple[int, int]], collator: Collator, passes: int = WARMUP_PASSES
    ) -> WarmupReport:
        """Run every shape [B, L] `passes` times. Call it in the thread and grad mode that will predict."""
        started, graphs_before = time.perf_counter(), self.graphs
        for shape in shapes:
            batch = collator.dummy(shape)
            for _ in range(passes):
                self._run(batch)
        if collator.device.type == "cuda":
            torch.cuda.synchronize(collator.device)
        self._warm_shapes.update(shapes)
        return WarmupReport(
            shapes=tuple(shapes),
            graphs=self.graphs - graphs_before,
            seconds=time.perf_counter() - started,
        )

    def _run(self, batch: PaddedBatch) -> Tensor:
        if self._replays_cudagraphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        if batch.shape in self._warm_shapes:
            logits = self._call(batch)
        else:  # one graph per shape may need more than PyTorch's limit of eight
            with torch._dynamo.config.patch(recompile_limit=4096, accumulated_recompile_limit=4096):
                logits = self._call(batch)
        # the next replay of a CUDA graph overwrites this one's output
        return logits.clone() if self._replays_cudagraphs else logits

    def _call(self, batch: PaddedBatch) -> Tensor:
        logits: Tensor = self._compiled(
            self._model, batch.input_ids, batch.attention_mask, batch.token_type_ids
        )
        return logits

    def _report_late(self, what: str) -> None:
        message = (
            f"xenc {what}, after warm-up. Warm up the batch size you predict with, "
            "model.warmup(batch_size=...), in the same grad mode and on the same device."
        )
        if self.strict:
            raise CompileError(message)
        if not self._warned:
            self._warned = True
            logger.warning("%s (said once; strict=True makes it an error)", message)


def _own_copy(function: Callable[..., Any]) -> FunctionType:
    """The same function with a code object of its own, named so that a watch knows it is fullgraph."""
    assert isinstance(function, FunctionType)
    name = FULLGRAPH_PREFIX + function.__name__
    code = function.__code__.replace(co_name=name)
    return FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
