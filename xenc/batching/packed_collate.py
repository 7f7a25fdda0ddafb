"""Tokens of a batch's pairs -> PackedBatch: pairs laid end to end on static shapes.

Shapes: T = tokens of a batch, N = its document slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from ..text.tokens import PairTokens
from .plan import PackedPlan

Pooling = Literal["first", "last", "mean"]
"""What the head reads of a document: its first token, its last that is not padding, or the mean of all."""

STAGES: Final = 4
"""Pinned buffers, used in turn: the host may be this many batches ahead of the device."""

Array = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """One packed batch on the device, ready for the model.

    Attributes:
        input_ids: int64 [T].
        position_ids: int64 [T], restarting in each document.
        token_type_ids: int64 [T], or None for a model without token types.
        cu_seqlens: int32 [N + 1], where each document starts; T for empty slots, and last.
        pooled: int64 [N], index of the token that the head reads of each document.
        max_seqlen: the most tokens a document may have.
    """

    input_ids: Tensor
    position_ids: Tensor
    token_type_ids: Tensor | None
    cu_seqlens: Tensor
    pooled: Tensor
    max_seqlen: int

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return len(self.input_ids), len(self.pooled)

    @property
    def arguments(self) -> tuple[Tensor | int | None, ...]:
        """Arguments of `models.forward.classify_packed` after the model."""
        ids, positions, types = self.input_ids, self.position_ids, self.token_type_ids
        return ids, positions, types, self.cu_seqlens, self.pooled, self.max_seqlen


class PinnedRing:
    """Asynchronous copies to the GPU, each through the pinned buffer that was used longest ago."""

    def __init__(self) -> None:
        self._stages: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def copy(self, values: Tensor, device: torch.device) -> Tensor:
        """`values` [n] on the device."""
        if len(self._stages) < STAGES:
            pinned = torch.empty(0, dtype=values.dtype)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        else:
            pinned, copied = self._stages.popleft()
            copied.synchronize()
        if len(pinned) < len(values):
            pinned = torch.empty(len(values), dtype=values.dtype, pin_memory=True)
        pinned[: len(values)].copy_(values)
        on_device = pinned[: len(values)].to(device, non_blocking=True)
        copied.record(torch.cuda.current_stream(device))
        self._stages.append((pinned, copied))
        return on_device


@dataclass(frozen=True, kw_only=True)
class PackedCollator:
    """Packs batches for one model.

    Attributes:
        pad_id: the token id of dummy documents.
        has_token_types: whether the model takes token_type_ids.
        device: where batches go. To CUDA they are copied asynchronously, each from one pinned buffer.
        pooling: the token that `PackedBatch.pooled` points at.
        first_position: the position id of a document's first token.
        unnumbered_id: a token without a position, such as RoBERTa's padding; or None.
        unread_id: a token that "last" pooling skips; or None.
    """

    pad_id: int
    has_token_types: bool
    device: torch.device
    pooling: Pooling = "first"
    first_position: int = 0
    unnumbered_id: int | None = None
    unread_id: int | None = None
    _ring: PinnedRing = field(default_factory=PinnedRing, repr=False)

    def collate(self, pairs: Sequence[PairTokens], batch: PackedPlan) -> PackedBatch:
        """Lay pairs out in [T], in the given order, with dummy documents behind them.

        A pair without tokens becomes one token of padding.

        Args:
            pairs: at most N, of at most T tokens together.
            batch: the plan with T and N.
        """
        rows = [pair.ids or [self.pad_id] for pair in pairs]
        counts = [len(ids) for ids in rows]
        left = batch.tokens - sum(counts)
        dummies = [min(batch.max_seqlen, left - at) for at in range(0, left, batch.max_seqlen)]
        cu_seqlens = np.full(batch.max_sequences + 1, batch.tokens, dtype=np.int64)
        cu_seqlens[: len(counts) + len(dummies) + 1] = [0, *accumulate(chain(counts, dummies))]
        ids = _laid_out(rows, batch.tokens, fill=self.pad_id)
        parts = [ids, self._positions(ids, cu_seqlens)]
        if self.has_token_types:
            types = [pair.types or [0] * len(ids) for pair, ids in zip(pairs, rows, strict=True)]
            parts.append(_laid_out(types, batch.tokens, fill=0))
        values = torch.from_numpy(np.concatenate([*parts, self._pooled(ids, cu_seqlens), cu_seqlens]))
        return self._on_device(values, batch)

    def dummy(self, plan: PackedPlan) -> PackedBatch:
        """A batch of dummy documents, to warm up on."""
        return self.collate((), plan)

    def _positions(self, ids: Array, cu_seqlens: Array) -> Array:
        """[T] position ids, restarting in each document."""
        counts = np.diff(cu_seqlens)
        if self.unnumbered_id is None:
            return np.arange(len(ids)) - np.repeat(cu_seqlens[:-1], counts) + self.first_position
        numbered = ids != self.unnumbered_id
        before = np.concatenate([[0], np.cumsum(numbered)])
        nth = before[1:] - np.repeat(before[cu_seqlens[:-1]], counts)
        positions: Array = nth * numbered + self.first_position - 1
        return positions

    def _pooled(self, ids: Array, cu_seqlens: Array) -> Array:
        """[N] index of the token that the head reads of each document; of any token for an empty slot."""
        first = np.minimum(cu_seqlens[:-1], len(ids) - 1)
        if self.pooling != "last":
            return first
        read = np.ones(len(ids), dtype=bool) if self.unread_id is None else ids != self.unread_id
        last_read = np.maximum.accumulate(np.where(read, np.arange(len(ids)), -1))  # up to each token
        last = last_read[np.maximum(cu_seqlens[1:] - 1, 0)]
        return np.where(last >= cu_seqlens[:-1], last, first)  # the first if no token of a document is read

    def _on_device(self, values: Tensor, batch: PackedPlan) -> PackedBatch:
        if self.device.type == "cuda":
            values = self._ring.copy(values, self.device)
        sizes = [batch.tokens] * (2 + self.has_token_types) + [batch.max_sequences, batch.max_sequences + 1]
        ids, positions, *types, pooled, cu_seqlens = torch.split(values, sizes)
        return PackedBatch(
            input_ids=ids, position_ids=positions, token_type_ids=types[0] if types else None, pooled=pooled,
            cu_seqlens=cu_seqlens.int(), max_seqlen=batch.max_seqlen,
        )  # fmt: skip


def _laid_out(rows: list[list[int]], tokens: int, *, fill: int) -> Array:
    """[tokens] the rows end to end, `fill` behind them."""
    values = np.full(tokens, fill, dtype=np.int64)
    flat = np.fromiter(chain.from_iterable(rows), np.int64)
    values[: len(flat)] = flat
    return values
