"""All stages in one place: pairs -> tokens -> plan -> batches -> forward -> logits in the caller's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .batching.plan import Plan
from .compiling.cold_start import load_graphs, save_graphs
from .compiling.prefix_cache import Compiled
from .compiling.wrapper import Batch, WarmupReport
from .execution import Execution
from .layouts.choice import layout_of
from .models.kernel_twin import twin_for
from .models.reranker import Reranker
from .serving.request import check_batch_size
from .serving.scheduler import Scheduler
from .serving.worker import Worker
from .text.readers import Reader
from .text.tokens import TokenizedPairs


class Pipeline(Scheduler):
    """One model under one execution.

    Args:
        reranker: the model, as it is now.
        reader: tokenizes its pairs.
        execution: an execution that the model can run.
        worker: the threads.
        reuse: a pipeline of the same model and graph settings, whose graphs to use.

    Attributes:
        reranker, reader, execution: as given.
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
        reuse: Pipeline | None = None,
    ) -> None:
        self.reranker, self.reader, self.execution = reranker, reader, execution
        self.model, self._graph_key = reranker.model, reranker.graph_key
        compiled: Compiled | None = None
        if reuse is None:
            self._twin, self.products = twin_for(self.model, execution)
        else:
            self._twin, self.products, compiled = reuse._twin, reuse.products, reuse.compiled
        runs = self.model if self._twin is None else self._twin.model
        self._attending = _attending(runs)
        self._layout = layout_of(reranker, execution, model=runs, compiled=compiled)
        self.compiled: Compiled | None = self._layout.compiled
        super().__init__(worker, self._layout.queue(), self._layout.collator)

    @property
    def multiplied_dtype(self) -> torch.dtype:
        """The dtype of the operands of the encoder's matrix products."""
        return torch.int8 if self.execution.quantize == "int8" else self.model.dtype

    def is_of(self, reranker: Reranker) -> bool:
        """Whether graphs, twin and collator still fit a model; its tokenization may differ."""
        same = self._graph_key == reranker.graph_key
        return same and (self._twin is None or self._twin.is_of(reranker.model))

    def reads_like(self, reranker: Reranker) -> bool:
        """Whether a model's pairs are tokenized as in this pipeline."""
        ours = self.reranker
        same_length = (ours.max_length, ours.asked_length) == (reranker.max_length, reranker.asked_length)
        return same_length and ours.tokenizer is reranker.tokenizer and ours.first_step == reranker.first_step

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
        return self._worker.on_device(self._warm_up, batch_size, passes, folder).result()

    def _warm_up(self, batch_size: int, passes: int | None, folder: Path | None) -> WarmupReport:
        if self._twin is not None:
            self._twin.follow(anyway=True)
        if self.compiled is None:
            return WarmupReport(products=self.products)
        if folder is not None:
            load_graphs(folder)
        with torch.inference_mode():
            self._use_attention()
            report = self.compiled.warmup(self.every_shape(batch_size), passes)
        if folder is not None:
            save_graphs(folder)
        return replace(report, products=self.products)

    def run(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Logits of collated batches: only forward passes, one after another, on the device's thread."""

        @torch.inference_mode()
        def run() -> list[Tensor]:
            return [self.forward(batch) for batch in batches]

        return self._worker.on_device(run).result()

    def forward(self, batch: Any) -> Tensor:
        """The logits of a batch, by the model's weights as they are now; on the device's thread."""
        self._use_attention()
        if self._twin is not None:
            self._twin.follow()
        return self._layout.forward(batch)

    def _use_attention(self) -> None:
        for part in self._attending:
            if part.config._attn_implementation != self._layout.attention:
                part.set_attn_implementation(self._layout.attention)


def _attending(model: PreTrainedModel) -> tuple[PreTrainedModel, ...]:
    """The modules whose attention must be set: the model, and T5's encoder and decoder, which have their own
    configurations and which transformers 5.17 leaves out when it sets the model's attention.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    alike = {id(part.config): part for part in parts if type(part.config) is type(model.config)}
    return tuple(alike.values())
