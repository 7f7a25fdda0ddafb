"""The compile wrapper: warm up every shape, then let nothing compile unnoticed.

torch.compile caches graphs by code object, so two wrappers of one function would share graphs, even under
other settings. Each `CompiledForward` therefore compiles a copy of its function that is its own.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from transformers import PreTrainedModel

from ..execution import Execution
from .cold_start import load_graphs, save_graphs
from .warmup import Batch, PreparedForward, WarmupReport
from .watch import FULLGRAPH_PREFIX, cached_graphs, last_recompile_reason

with FakeTensorMode():
    """Tracing for CUDA where there is no GPU, torch 2.11 goes on using what the first thread to trace had for
    itself, even when that thread has ended: a segmentation fault. The thread that imports seldom ends."""

CUDAGRAPH_PASSES: Final = 3
"""CUDA-graph trees run a shape once, then record it, and only then replay it."""

_SETTING: Final = threading.Lock()
"""Dynamo's settings belong to a thread, but in torch 2.11 to the process: of two that change them at once,
each would put back what the other had set."""

_COMPILING: Final = {
    # one graph per shape may need more than PyTorch's limit of eight
    "recompile_limit": 4096,
    "accumulated_recompile_limit": 4096,
    # else each float of a module, such as a norm's epsilon, is a tensor on the CPU, made for every batch
    "specialize_float": True,
}


class CompiledForward(PreparedForward):
    """A model's forward pass under torch.compile(fullgraph=True).

    Before `warmup` it compiles as torch.compile does. Afterwards a compilation is an error in strict mode
    and a warning with the guard's reason otherwise.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        model: PreTrainedModel,
        execution: Execution,
        constants: tuple[object, ...] = (),
    ) -> None:
        super().__init__(strict=execution.strict)
        self._model, self._constants = model, constants
        self._replays_cudagraphs = model.device.type == "cuda" and execution.compile_mode in (
            "reduce-overhead",
            "max-autotune",
        )
        self._warm_shapes: set[tuple[int, int]] = set()
        self._have_run: set[tuple[int, int]] = set()
        self._own_function = _own_copy(function)
        self._compiled = torch.compile(
            self._own_function, fullgraph=True, mode=execution.compile_mode, dynamic=execution.dynamic
        )

    @property
    def graphs(self) -> int:
        """Graphs compiled so far for this wrapper alone."""
        return cached_graphs(self._own_function.__code__)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits of a batch, [B, C] or [N, C]; see `forward`.

        Raises:
            CompileError: something compiled after warm-up, in strict mode.
        """
        if not self._warm_shapes:
            return self._run(batch)
        graphs_before = self.graphs
        logits = self._run(batch)
        if self.graphs > graphs_before:
            self._compiled_late(f"compiled: {last_recompile_reason(self._own_function.__name__)}")
        elif self._replays_cudagraphs and batch.shape not in self._warm_shapes:
            self._compiled_late("recorded a CUDA graph")
        return logits

    def warmup(
        self, batches: Iterable[Batch], passes: int | None = None, folder: Path | None = None
    ) -> WarmupReport:
        """Run every batch `passes` times; None for as many as it takes: one, or CUDAGRAPH_PASSES."""
        if folder is not None:
            load_graphs(folder)
        passes = passes or (CUDAGRAPH_PASSES if self._replays_cudagraphs else 1)
        started, graphs_before = time.perf_counter(), self.graphs
        shapes = []
        for batch in batches:
            for _ in range(passes):
                self._run(batch)
            shapes.append(batch.shape)
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        self._warm_shapes.update(shapes)
        if folder is not None:
            save_graphs(folder)
        return WarmupReport(
            shapes=tuple(shapes),
            graphs=self.graphs - graphs_before,
            seconds=time.perf_counter() - started,
        )

    def _run(self, batch: Batch) -> Tensor:
        if self._replays_cudagraphs:
            make_room_for_cudagraphs()
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        if batch.shape in self._have_run:
            logits = self._call(batch)
        else:
            with _SETTING, torch._dynamo.config.patch(**_COMPILING):
                logits = self._call(batch)
            self._have_run.add(batch.shape)
        # the next replay of a CUDA graph overwrites this one's output
        return logits.clone() if self._replays_cudagraphs else logits

    def _call(self, batch: Batch) -> Tensor:
        logits: Tensor = self._compiled(self._model, *batch.arguments, *self._constants)
        return logits

    def _compiled_late(self, what: str) -> None:
        self._report_late(
            what,
            "Warm up the batch size you predict with, model.warmup(batch_size=...), in the same grad mode "
            "and on the same device.",
        )


def make_room_for_cudagraphs() -> None:
    """Let this thread record CUDA graphs.

    torch 2.11 keeps them by thread, and makes room on the one that imports them alone; on any other it fails.
    Later versions make room where it is wanted.
    """
    from torch._inductor import cudagraph_trees as trees

    if not hasattr(trees.local, "tree_manager_containers"):
        trees.local.tree_manager_containers = {}
        trees.local.tree_manager_locks = defaultdict(threading.Lock)


def _own_copy(function: Callable[..., Any]) -> FunctionType:
    """The same function with a code object of its own, named so that a watch knows it is fullgraph."""
    assert isinstance(function, FunctionType)
    name = FULLGRAPH_PREFIX + function.__name__
    code = function.__code__.replace(co_name=name)
    return FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
