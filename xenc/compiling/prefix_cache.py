"""A static KV cache that holds one request's shared prefix, filled before the first batch that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..batching.packed_collate import PackedBatch
from ..batching.prefix_collate import PrefixedBatch
from ..batching.prefix_plan import Prefix
from .wrapper import CompiledForward, TooLarge, WarmupReport


class PrefixForward:
    """A model's forward pass on batches whose documents share a prefix. Call it from one thread.

    If `read` and `classify` are `CompiledForward`s, it has what those have.

    The cache holds one prefix and takes 2 x layers x max_seqlen x K x D x itemsize bytes (K key and value
    heads of size D): 0.9 GiB for Qwen3-Reranker-0.6B in bfloat16 at 8,192 tokens. While a prefix is read, its
    keys and values exist twice.

    Args:
        model: a causal model.
        read: a packed batch -> keys and values [layers, 2, T, K, D]; compiled or not.
        classify: a prefixed batch -> logits [N, C]; compiled if `read` is.
        lay_out: a prefix -> the packed batch whose first document it is.
        max_seqlen: the longest prefix, in tokens; also an attribute.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        read: Any,
        classify: Any,
        lay_out: Callable[[Prefix], PackedBatch],
        max_seqlen: int,
    ) -> None:
        self._model, self._read, self._classify, self._lay_out = model, read, classify, lay_out
        self.max_seqlen = max_seqlen
        self._held: Prefix | None = None
        self._cache: Tensor | None = None
        self._nothing: Tensor | None = None
        self._starts: Tensor | None = None

    def __call__(self, batch: PrefixedBatch) -> Tensor:
        """Logits [N, C] of a batch. The prefix is read unless the previous batch had the same."""
        logits: Tensor = self._classify(self._after_prefix(batch))
        return logits

    def holds(self, prefix: Prefix) -> bool:
        """Whether this prefix is in the cache."""
        return self._held is prefix

    def _after_prefix(self, batch: PrefixedBatch) -> PrefixedBatch:
        if self._cache is None:
            self._cache = _empty_cache(self._model, self.max_seqlen)
            self._nothing = torch.zeros(2, dtype=torch.int32, device=self._model.device)
        if batch.prefix is None:
            return replace(batch, cache=self._cache, prefix_cu_seqlens=self._nothing)
        if batch.prefix is not self._held:
            self._held = None  # stays so if reading fails
            packed = self._lay_out(batch.prefix)
            layers = self._read(packed)
            self._cache[:, :, : layers.shape[2]].copy_(layers)
            self._starts = packed.cu_seqlens[:2].clone()
            self._held = batch.prefix
        return replace(batch, cache=self._cache, prefix_cu_seqlens=self._starts)

    @property
    def strict(self) -> bool:
        """See `CompiledForward`."""
        return bool(self._read.strict)

    @strict.setter
    def strict(self, strict: bool) -> None:
        self._read.strict = self._classify.strict = strict

    @property
    def is_warm(self) -> bool:
        """See `CompiledForward`."""
        return bool(self._classify.is_warm)

    @property
    def warm_shapes(self) -> Set[tuple[int, int]]:
        """See `CompiledForward`; those of batches, not of prefixes."""
        shapes: Set[tuple[int, int]] = self._classify.warm_shapes
        return shapes

    @property
    def graphs(self) -> int:
        """Graphs compiled so far for the two functions."""
        return int(self._read.graphs + self._classify.graphs)

    def warmup(
        self, batches: Iterable[Any], passes: int | None = None, too_large: TooLarge | None = None
    ) -> WarmupReport:
        """Read the prefixes of the batches that have one, and run the others; see `CompiledForward`."""
        return sum((self._warm(batch, passes, too_large) for batch in batches), WarmupReport())

    def _warm(self, batch: Any, passes: int | None, too_large: TooLarge | None) -> WarmupReport:
        unfit = too_large and (lambda _, asked: too_large(batch, asked))
        report: WarmupReport
        if batch.prefix is None:
            report = self._classify.warmup([self._after_prefix(batch)], passes, unfit)
        else:
            report = self._read.warmup([self._lay_out(batch.prefix)], passes, unfit)
        return report


Compiled = CompiledForward | PrefixForward


def _empty_cache(model: PreTrainedModel, max_seqlen: int) -> Tensor:
    """Zeros [layers, 2, max_seqlen, K, D]."""
    config: Any = model.config.get_text_config()
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = torch.zeros(
        config.num_hidden_layers, 2, max_seqlen, config.num_key_value_heads, head_size,
        dtype=model.dtype, device=model.device,
    )  # fmt: skip
    torch._dynamo.mark_static(cache)  # otherwise a size that happens to equal a batch's is tied to it
    return cache
