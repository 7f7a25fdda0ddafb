"""Tokens of a batch's pairs -> PaddedBatch, for padded and bucketed batches.

Shapes: B = rows of a batch (dummy rows included), L = padded length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..errors import ModelError
from ..text.tokens import PairTokens
from .plan import BatchPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class PaddedBatch:
    """One batch on the device, ready for the model.

    Attributes:
        input_ids: int64 [B, L], padded on the right.
        attention_mask: int64 [B, L], 1 on real tokens.
        token_type_ids: int64 [B, L], or None for a model without token types.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(B, L)."""
        rows, length = self.input_ids.shape
        return rows, length

    @property
    def arguments(self) -> tuple[Tensor | None, ...]:
        """Arguments of `models.forward.classify` after the model."""
        return self.input_ids, self.attention_mask, self.token_type_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Collator:
    """Pads batches for one model.

    Attributes:
        pad_id: the padding token's id.
        has_token_types: whether the model takes token_type_ids.
        device: where batches go. To CUDA they are copied asynchronously from pinned memory.
        required_id: a token that each pair must have and dummy rows consist of, or None.
    """

    pad_id: int
    has_token_types: bool
    device: torch.device
    required_id: int | None = None

    def collate(self, pairs: Sequence[PairTokens], batch: BatchPlan) -> PaddedBatch:
        """Pad pairs to [B, L], in the given order.

        A dummy row, like a pair without tokens, attends to one token: attention over none would be NaN.

        Args:
            pairs: at most B, none longer than L.
            batch: the plan with B and L.

        Raises:
            ModelError: a pair without the required token.
        """
        self._check_required(pairs)
        dummy = PairTokens([] if self.required_id is None else [self.required_id])
        rows = [*pairs, *[dummy] * (batch.batch_size - len(pairs))]
        counts = rearrange(torch.tensor([len(row.ids) for row in rows]), "b -> b 1")
        positions = torch.arange(batch.length)  # [L]
        real, attended = positions < counts, positions < counts.clamp(min=1)  # [B, L]
        types = None
        if self.has_token_types:
            types = self._to_device(_scatter(real, [row.types or [0] * len(row.ids) for row in rows], fill=0))
        return PaddedBatch(
            input_ids=self._to_device(_scatter(real, [row.ids for row in rows], fill=self.pad_id)),
            attention_mask=self._to_device(attended.long()),
            token_type_ids=types,
        )

    def dummy(self, shape: tuple[int, int]) -> PaddedBatch:
        """A batch [B, L] of full-length dummy rows, to warm up on."""
        batch_size, length = shape
        filler = self.pad_id if self.required_id is None else self.required_id
        pairs = [PairTokens([filler] * length)] * batch_size
        return self.collate(pairs, BatchPlan(tuple(range(batch_size)), batch_size, length))

    def _check_required(self, pairs: Sequence[PairTokens]) -> None:
        for ids in (pair.ids for pair in pairs if self.required_id is not None):
            if self.required_id not in ids:
                raise ModelError(
                    f"a pair's {len(ids)} tokens hold no <eos> ({self.required_id}), which this classifier "
                    "reads: give the tokenizer a post-processor that adds it."
                )

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)


def _scatter(real: Tensor, rows: list[list[int]], *, fill: int) -> Tensor:
    """[B, L] int64: the rows' values where `real` is True, `fill` elsewhere."""
    values = torch.full(real.shape, fill, dtype=torch.int64)
    values[real] = torch.tensor([value for row in rows for value in row], dtype=torch.int64)
    return values
