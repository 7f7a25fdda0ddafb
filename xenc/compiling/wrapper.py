"""The torch.compile wrapper: warm up every shape, then report whatever still compiles.

torch.compile caches graphs by code object, so wrappers of one function would share graphs even under
different settings. So each `CompiledForward` compiles its own copy of the function.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Final
from weakref import finalize

import torch
import torch._inductor.config
from torch import Tensor
from torch._dynamo.eval_frame import remove_from_cache
from torch._subclasses import FakeTensorMode
from transformers import PreTrainedModel

from ..batching.packed_collate import PackedBatch
from ..batching.padded_collate import PaddedBatch
from ..batching.prefix_collate import PrefixedBatch
from ..errors import CompileError
from ..execution import Execution
from ..forks import renewed_in_a_child
from .memory import memory_asked
from .watch import cached_graphs, last_recompile_reason

logger = logging.getLogger(__name__)

Batch = PaddedBatch | PackedBatch | PrefixedBatch

TooLarge = Callable[[Any, str], object]
"""Called with a batch that did not fit the device's memory, and what could not be allocated."""

with FakeTensorMode():
    """Without a GPU, CUDA builds of torch 2.11 keep using data of the first thread that traced, after it has
    ended: a segmentation fault. The importing thread seldom ends, so it traces first."""

CUDAGRAPH_MODES: Final = ("reduce-overhead", "max-autotune")

CUDAGRAPH_PASSES: Final = 3
"""CUDA graph trees run a shape once, record it the second time, and replay it from the third."""

_SETTING: Final = renewed_in_a_child(threading.Lock())
"""In torch 2.11 Dynamo's settings belong to the process: two threads that patch them at once would each
restore the other's values."""

_COMPILING: Final = {
    # one graph per shape may need more than PyTorch's limit of eight
    "recompile_limit": 4096,
    "accumulated_recompile_limit": 4096,
    # otherwise each float of a module, such as a norm's epsilon, becomes a CPU tensor for every batch
    "specialize_float": True,
}

_UNWARNED: Final = {"triton.cudagraph_dynamic_shape_warn_limit": None}


@dataclass(frozen=True, kw_only=True)
class WarmupReport:
    """What a warm-up did.

    Attributes:
        shapes: shapes run, (B, L) of padded batches or (T, N) of packed ones.
        graphs: graphs compiled.
        seconds: duration, including compilation.
        products: the implementation of the encoder's matrix products; see `Execution.products`.
        too_large: shapes that did not fit the device's memory; no batch of several pairs has one.
    """

    shapes: tuple[tuple[int, int], ...] = ()
    graphs: int = 0
    seconds: float = 0.0
    products: str = ""
    too_large: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: WarmupReport) -> WarmupReport:
        """The report on both."""
        return replace(
            self, shapes=self.shapes + other.shapes, graphs=self.graphs + other.graphs,
            seconds=self.seconds + other.seconds, too_large=self.too_large + other.too_large,
        )  # fmt: skip


class CompiledForward:
    """A model's forward pass, function(model, *batch.arguments, *constants), under torch.compile.

    After `warmup`, compiling is an error if `strict`, otherwise a warning, with the guard's reason.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        model: PreTrainedModel,
        execution: Execution,
        constants: tuple[object, ...] = (),
    ) -> None:
        self.strict, self._warned = execution.strict, False
        self._model, self._constants = model, constants
        mode = execution.compile_mode_on(model.device.type)
        self._replays_cudagraphs = model.device.type == "cuda" and mode in CUDAGRAPH_MODES
        self._warm_shapes: set[tuple[int, int]] = set()
        self._have_run: set[tuple[int, int]] = set()
        self._own_function = _own_copy(function)
        finalize(self, remove_from_cache, self._own_function)  # Dynamo keeps graphs of what is gone
        renewed_in_a_child(torch._dynamo.convert_frame.compile_lock)
        self._compiled = torch.compile(
            self._own_function, fullgraph=True, mode=mode, dynamic=execution.dynamic
        )

    @property
    def is_warm(self) -> bool:
        """Whether `warmup` has run."""
        return bool(self._warm_shapes)

    @property
    def warm_shapes(self) -> Set[tuple[int, int]]:
        """The shapes that warm-up has run."""
        return self._warm_shapes

    @property
    def graphs(self) -> int:
        """Graphs compiled so far for this wrapper."""
        return cached_graphs(self._own_function.__code__)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits of a batch, [B, C] or [N, C].

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
        self, batches: Iterable[Batch], passes: int | None = None, too_large: TooLarge | None = None
    ) -> WarmupReport:
        """Run every batch. Call it in the thread and grad mode that will predict.

        Args:
            batches: one of each shape.
            passes: how often each runs; None for three times under CUDA graphs and once without.
            too_large: called for each that does not fit the memory, before the next one; None to raise.
        """
        started, graphs_before = time.perf_counter(), self.graphs
        shapes: list[tuple[int, int]] = []
        left_out: list[tuple[int, int]] = []
        for batch in batches:
            asked = self._warm(batch, passes, raises=too_large is None)
            (shapes if asked is None else left_out).append(batch.shape)
            if asked is not None and too_large is not None:
                too_large(batch, asked)
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        self._warm_shapes.update(shapes)
        graphs, seconds = self.graphs - graphs_before, time.perf_counter() - started
        return WarmupReport(shapes=tuple(shapes), graphs=graphs, seconds=seconds, too_large=tuple(left_out))

    def _warm(self, batch: Batch, passes: int | None, *, raises: bool) -> str | None:
        """Run a batch; what could not be allocated, without the error, whose traceback holds tensors."""
        try:
            for _ in range(passes or (CUDAGRAPH_PASSES if self._replays_cudagraphs else 1)):
                self._run(batch)
        except Exception as error:
            asked = memory_asked(error)
            if raises or asked is None:
                raise
            return asked
        return None

    def _run(self, batch: Batch) -> Tensor:
        if self._replays_cudagraphs:
            make_room_for_cudagraphs()
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        if batch.shape in self._have_run:
            logits = self._call(batch)
        else:
            with _SETTING, torch._dynamo.config.patch(**_COMPILING), self._expected_recordings():
                logits = self._call(batch)
            self._have_run.add(batch.shape)
        # the next replay of a CUDA graph overwrites its output
        return logits.clone() if self._replays_cudagraphs else logits

    def _expected_recordings(self) -> AbstractContextManager[object]:
        """PyTorch warns of many CUDA graphs, which warm-up records on purpose.

        Not for the first shape: settings are part of the key of what it compiles in the compiler's cache.
        """
        return torch._inductor.config.patch(_UNWARNED) if self._have_run else nullcontext()

    def _call(self, batch: Batch) -> Tensor:
        logits: Tensor = self._compiled(self._model, *batch.arguments, *self._constants)
        return logits

    def _compiled_late(self, what: str) -> None:
        message = (
            f"xenc {what}, after warm-up. Warm up the batch size you predict with, "
            "model.warmup(batch_size=...), in the same grad mode and on the same device."
        )
        if self.strict:
            raise CompileError(message)
        if not self._warned:
            self._warned = True
            logger.warning("%s (said once; strict=True makes it an error)", message)


def make_room_for_cudagraphs() -> None:
    """Let this thread record CUDA graphs, which torch 2.11 allows only on the thread that imports them."""
    from torch._inductor import cudagraph_trees as trees

    if not hasattr(trees.local, "tree_manager_containers"):
        trees.local.tree_manager_containers = {}
        trees.local.tree_manager_locks = defaultdict(threading.Lock)


def _own_copy(function: Callable[..., Any]) -> FunctionType:
    """The function with its own code object, and so with graphs of its own."""
    assert isinstance(function, FunctionType)
    name = f"xenc_{function.__name__}"
    code = function.__code__.replace(co_name=name)
    return FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
