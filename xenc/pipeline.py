"""All stages in one place: pairs -> tokens -> plan -> batches -> forward -> logits in the caller's order."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .batching.plan import BatchPlan, PackedPlan, Plan
from .batching.prefix_collate import PrefixedBatch
from .compiling.cold_start import load_graphs, save_graphs
from .compiling.memory import memory_asked
from .compiling.prefix_cache import Compiled
from .compiling.untraceable import UNCOMPILABLE, why_uncompilable
from .compiling.wrapper import Batch, WarmupReport
from .errors import CompileError, OutOfMemoryError
from .execution import Execution
from .layouts.choice import layout_of, possible_execution
from .layouts.fitting import Fitting, nothing_fits, pair_does_not_fit
from .layouts.probe import OwnLogits, moves_scores
from .models.attention import Attention
from .models.changes import Look
from .models.kernel_twin import twin_for
from .models.reranker import Reranker
from .serving.request import Request, check_batch_size
from .serving.scheduler import Scheduler
from .serving.worker import Worker
from .text.readers import Reader
from .text.tokens import TokenizedPairs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OwnPredict:
    """In place of a `Pipeline`, for a model that sentence-transformers' own predict scores.

    Attributes:
        asked: see `Pipeline`.
        execution: describes what it does: padded to the longest pair and not compiled.
        why: the reason.
        graph_key, look: of the model, when this was decided.
    """

    asked: Execution
    execution: Execution
    why: str
    graph_key: tuple[object, ...]
    look: Look | None

    def is_of(self, reranker: Reranker) -> bool:
        """Whether the model is the one that this was decided for."""
        return self.graph_key == reranker.graph_key and _same(self.look, reranker.look, settings=True)

    def still_serves(self, reranker: Reranker, asked: Execution) -> bool:
        """Whether what was decided still holds; a changed model is looked at anew."""
        return self.asked == asked and self.is_of(reranker)


class Pipeline(Scheduler):
    """One model under one execution. What turns out not to compile runs as it is, and says so once.

    Args:
        reranker: the model, as it is now.
        reader: tokenizes its pairs.
        execution: an execution that the model can run.
        worker: the threads.
        asked: what was asked for, where that is not what the model can run; tried again for a changed model.
        reuse: a pipeline of the same model and graph settings, whose graphs to use.

    Attributes:
        reranker, reader, asked: as given.
        execution: as given; without a compile mode once the forward pass has turned out not to compile.
        model: the reranker's model.
        compiled: the forward pass, if the execution compiles it.
        products: the implementation of the encoder's matrix products, and why it was chosen.
        queue, collator, span: see `Scheduler`.

    Raises:
        ExecutionError: buckets or token budgets below max_length; a quantization that the device, the dtype
            or the model does not support.
        NotInstalledError: the quantization needs torchao.
    """

    def __init__(
        self,
        reranker: Reranker,
        reader: Reader,
        execution: Execution,
        worker: Worker,
        asked: Execution | None = None,
        reuse: Pipeline | None = None,
    ) -> None:
        self.reranker, self.reader, self.execution = reranker, reader, execution
        self.asked = asked or execution
        self.model, self._graph_key, self._look = reranker.model, reranker.graph_key, reranker.look
        compiled: Compiled | None = None
        if reuse is None:
            self._twin, self.products = twin_for(self.model, execution)
        else:
            self._twin, self.products, compiled = reuse._twin, reuse.products, reuse.compiled
        self._runs = self.model if self._twin is None else self._twin.model
        self._layout = layout_of(reranker, execution, model=self._runs, compiled=compiled)
        self._attention = Attention(self._runs, self._layout.attention)
        self.compiled: Compiled | None = self._layout.compiled
        self._fitting = Fitting(self.model.device)
        self._warmed: dict[int, int | None] = {} if reuse is None else reuse._warmed  # batch sizes, passes
        super().__init__(worker, self._layout.queue(), self._layout.collator)

    @property
    def multiplied_dtype(self) -> torch.dtype:
        """The dtype of the operands of the encoder's matrix products."""
        return torch.int8 if self.execution.quantize == "int8" else self.model.dtype

    def is_of(self, reranker: Reranker) -> bool:
        """Whether graphs, twin and collator still fit a model; its tokenization may differ."""
        if self._graph_key != reranker.graph_key or not (self._twin is None or self._twin.fits()):
            return False
        copied = self._twin is not None or getattr(reranker.packing, "relative", False)  # into it, or a table
        if not _same(self._look, reranker.look, settings=copied):
            return False
        self._look = reranker.look
        return True

    def still_serves(self, reranker: Reranker, asked: Execution) -> bool:
        """Whether this pipeline scores a model as it is now, under the execution that is asked for."""
        return self.asked == asked and self.is_of(reranker) and self.reads_like(reranker)

    def reads_like(self, reranker: Reranker) -> bool:
        """Whether a model's pairs are tokenized as in this pipeline."""
        ours = self.reranker
        same_length = (ours.max_length, ours.asked_length) == (reranker.max_length, reranker.asked_length)
        return same_length and ours.tokenizer is reranker.tokenizer and ours.first_step == reranker.first_step

    def schedule(self, request: Request) -> Future[Any]:
        """See `Scheduler.schedule`."""
        if self._twin is not None:
            self._twin.expect_writes()
        return super().schedule(request)

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> TokenizedPairs:
        """The tokens of N pairs, cut to max_length."""
        return self.reader.for_request(None)(pairs)

    def plan(self, tokens: TokenizedPairs, *, batch_size: int) -> Plan:
        """The batches of a request that shares none."""
        return self._layout.plan(tokens, batch_size)

    def every_shape(self, batch_size: int) -> Iterator[Batch]:
        """A dummy batch of every shape that batches can have."""
        return self._layout.every_shape(batch_size)

    def warmup(self, batch_size: int, passes: int | None, folder: Path | None = None) -> WarmupReport:
        """Run every shape that batches can have, if the forward pass is compiled."""
        check_batch_size(batch_size)
        return self._worker.result_on_device(self._warm_up, batch_size, passes, folder)

    def _warm_up(self, batch_size: int, passes: int | None, folder: Path | None) -> WarmupReport:
        if self._twin is not None:
            self._twin.follow(anyway=True)
        if self.compiled is None:
            return WarmupReport(products=self.products)
        if folder is not None:
            load_graphs(folder)
        report = self._run_shapes(self.every_shape(batch_size), passes)
        if self.compiled is None:
            return WarmupReport(products=self.products)
        self._warmed[batch_size] = passes
        if folder is not None:
            save_graphs(folder)
        return replace(report, products=self.products)

    def _run_shapes(self, batches: Iterator[Batch], passes: int | None) -> WarmupReport:
        """Warm up on batches, and on smaller ones for those that do not fit."""
        assert self.compiled is not None
        last: list[str] = []

        def too_large(batch: Batch, asked: str) -> None:
            last[:] = asked, self._layout.described(batch.shape)
            self._fitting.halve(self._layout, batch.shape, asked, batch=batch)

        with torch.inference_mode(), self._attention.lent(), self._worker.interruptible():
            try:
                report = self.compiled.warmup(batches, passes, too_large)
            except UNCOMPILABLE as error:
                self._give_up_compiling(error)
                return WarmupReport()
        if last and not self.compiled.is_warm:
            raise nothing_fits(*last)
        if report.shapes:
            self._fitting.say(self._layout, report.shapes[0], report.graphs)
        return report

    def halve(self, plan: BatchPlan | PackedPlan, asked: str, pairs: int) -> bool:
        """See `Scheduler`. If smaller batches have shapes of their own, those are warmed up now."""
        tried = not self._layout.is_unknown(plan.shape)
        if not tried or not self._fitting.halve(self._layout, plan.shape, asked, pairs=pairs, batch=plan):
            return False
        for batch_size, passes in self._warmed.items():
            if self.compiled is None:
                break
            report = self._run_shapes(self._cold_shapes(batch_size), passes)
            if report.graphs and self.execution.strict:
                raise CompileError(
                    f"{self._layout.described(plan.shape)} did not fit the memory ({asked}), and smaller "
                    f"ones were compiled after warm-up; {self._layout.limited(report.shapes[0])}."
                )
        return True

    def _cold_shapes(self, batch_size: int) -> Iterator[Batch]:
        """A dummy batch of every shape that has not been warmed up."""
        for batch in self.every_shape(batch_size):
            read = isinstance(batch, PrefixedBatch) and batch.prefix is not None
            if self.compiled is not None and not read and batch.shape not in self.compiled.warm_shapes:
                yield batch

    def note_fit(self, plan: BatchPlan | PackedPlan) -> None:
        """See `Scheduler`."""
        self._fitting.say(self._layout, plan.shape)

    def does_not_fit(self, plan: BatchPlan | PackedPlan, asked: str, tokens: int) -> OutOfMemoryError:
        """See `Scheduler`."""
        return pair_does_not_fit(tokens, asked, self._layout.described(plan.shape))

    def run(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Logits of collated batches: only forward passes, one after another, on the device's thread."""

        @torch.inference_mode()
        def run() -> list[Tensor]:
            return [self.forward(batch) for batch in batches]

        if self._twin is not None:
            self._twin.expect_writes()
        return self._worker.result_on_device(run)

    def forward(self, batch: Any) -> Tensor:
        """The logits of a batch, by the model's weights as they are now; on the device's thread."""
        if self._twin is not None:
            self._twin.follow()
        if self._layout.is_unknown(batch.shape):
            raise MemoryError("warm-up found none")
        with self._attention.lent(), self._worker.interruptible():
            try:
                return self._layout.forward(batch)
            except UNCOMPILABLE as error:
                if self.compiled is None or memory_asked(error):  # or somebody compiles a part of the model
                    raise
                self._give_up_compiling(error)
            return self._layout.forward(batch)

    def _give_up_compiling(self, error: Exception) -> None:
        """Run the same batches without compiling. On the device's thread, so no batch is lost."""
        why = why_uncompilable(self.model, error)
        if self.execution.strict:
            raise CompileError(
                f"{why}. Use compile_mode=None, or strict=False to fall back to it."
            ) from error
        logger.warning("%s: execution is now not compiled, which is slower", why)
        self.execution = replace(self.execution, compile_mode=None)
        limit = self._layout.limit
        self._layout = layout_of(self.reranker, self.execution, model=self._runs, limit=limit)
        self.compiled = None


def pipeline_for(
    reranker: Reranker, reader: Reader, asked: Execution, worker: Worker, own: OwnLogits,
    current: Pipeline | OwnPredict | None,
) -> Pipeline | OwnPredict:  # fmt: skip
    """What scores a model, decided anew if the model or the execution that is asked for has changed.

    Args:
        reranker: the model, as it is now.
        reader: tokenizes its pairs.
        asked: an execution, which the model may be unable to run.
        worker: the threads.
        own: see `probe.moves_scores`.
        current: what scored before, whose decision and graphs are kept where they still fit.

    Raises:
        ExecutionError: see `possible_execution` and `Pipeline`.
    """
    if current is not None and not current.is_of(reranker):
        if isinstance(current, Pipeline) and current.compiled is not None and current.compiled.is_warm:
            logger.warning("the model has changed since `warmup`: its graphs are compiled again")
        current = None
    if isinstance(current, Pipeline) and current.asked == asked:
        execution, why = current.execution, None
    else:
        looks = partial(moves_scores, reranker, reader=reader, own=own)
        execution, why = possible_execution(reranker, asked, looks)
    if why is not None:
        return OwnPredict(
            asked=asked, execution=execution, why=why, graph_key=reranker.graph_key, look=reranker.look
        )
    reuse = current if isinstance(current, Pipeline) else None
    if reuse is not None and reuse.execution.graph_settings != execution.graph_settings:
        reuse = None
    return Pipeline(reranker, reader, execution, worker, asked, reuse)


def _same(before: Look | None, now: Look | None, *, settings: bool) -> bool:
    """Whether a look found what an earlier one did; see `Look.same`."""
    return before is now or before is None or now is None or now.same(before, settings=settings)
