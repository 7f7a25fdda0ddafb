"""Tokens of a batch's pairs -> PaddedBatch. The bucketed collate: every batch in a shape that was warmed up.

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
        token_type_ids: int64 [B, L], or None for a model that takes none.
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
        """What `forward.classify` takes after the model."""
        return self.input_ids, self.attention_mask, self.token_type_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Collator:
    """Pads batches for one model.

    Attributes:
        pad_id: the token id written where there is no token.
        has_token_types: whether the model takes token_type_ids.
        required_id: a token that each pair must have and a dummy row is made of, or None.
        device: where batches go. On CUDA they are staged in pinned memory and copied asynchronously.
    """

    pad_id: int
    has_token_types: bool
    device: torch.device
    required_id: int | None = None

    def collate(self, pairs: Sequence[PairTokens], batch: BatchPlan) -> PaddedBatch:
        """Lay pairs out in [B, L], in the order given.

        A dummy row, like a pair of no tokens at all, shows the model one padding token: attention over
        nothing would be NaN.

        Args:
            pairs: at most B, none longer than L.
            batch: says B and L.

        Raises:
            ModelError: a pair without the required token.
        """
        row_ids = [pair.ids for pair in pairs]
        if self.required_id is not None:
            row_ids = self._with_required(row_ids, batch.batch_size)
        counts = torch.zeros(batch.batch_size, dtype=torch.int64)
        counts[: len(row_ids)] = torch.tensor([len(ids) for ids in row_ids])
        # [B, L]: True where a real token stands
        real = rearrange(torch.arange(batch.length), "l -> 1 l") < rearrange(counts, "b -> b 1")
        attended = rearrange(torch.arange(batch.length), "l -> 1 l") < rearrange(
            counts.clamp(min=1), "b -> b 1"
        )
        types = None
        if self.has_token_types:
            row_types = [pair.types or [0] * len(pair.ids) for pair in pairs]
            row_types += [[0] * len(ids) for ids in row_ids[len(pairs) :]]
            types = self._to_device(_scatter(real, row_types, fill=0))
        return PaddedBatch(
            input_ids=self._to_device(_scatter(real, row_ids, fill=self.pad_id)),
            attention_mask=self._to_device(attended.long()),
            token_type_ids=types,
        )

    def dummy(self, shape: tuple[int, int]) -> PaddedBatch:
        """A batch [B, L] of full-length dummy rows, to warm up on."""
        batch_size, length = shape
        filler = self.pad_id if self.required_id is None else self.required_id
        pairs = [PairTokens([filler] * length)] * batch_size
        return self.collate(pairs, BatchPlan(tuple(range(batch_size)), batch_size, length))

    def _with_required(self, row_ids: list[list[int]], rows: int) -> list[list[int]]:
        required = self.required_id
        assert required is not None
        for ids in row_ids:
            if required not in ids:
                raise ModelError(
                    f"a pair's {len(ids)} tokens hold no <eos> ({required}), which this classifier reads: "
                    "give the tokenizer a post-processor that adds it."
                )
        return row_ids + [[required]] * (rows - len(row_ids))

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)


def _scatter(real: Tensor, rows: list[list[int]], *, fill: int) -> Tensor:
    """[B, L] int64: the rows' values where `real` is True, `fill` elsewhere."""
    values = torch.full(real.shape, fill, dtype=torch.int64)
    values[real] = torch.tensor([value for row in rows for value in row], dtype=torch.int64)
    return values
