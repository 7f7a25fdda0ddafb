"""PackedPlan + tokens -> NestedBatch: the documents of a batch as PyTorch's jagged tensors.

Shapes: N = documents, j = tokens of each, T = their sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nested import nested_tensor_from_jagged

from ..packed_collate import PackedBatch, PackedCollator
from ..plan import PackedPlan
from ..tokens import TokenizedPairs


@dataclass(frozen=True, kw_only=True, slots=True)
class NestedBatch:
    """One batch of jagged tensors on the device; all of them share their offsets.

    Attributes:
        input_ids: int64 [N, j].
        position_ids: int64 [N, j], starting anew in each document.
        token_type_ids: int64 [N, j], or None for a model that takes none.
        pooled: int64 [N + 1], where in the T values the token stands that the head reads of each document;
            and one more, since torch.compile makes a graph of its own for a size of 1.
    """

    input_ids: Tensor
    position_ids: Tensor
    token_type_ids: Tensor | None
    pooled: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return len(self.input_ids.values()), len(self.pooled) - 1

    @property
    def arguments(self) -> tuple[Tensor | None, ...]:
        """What `forward.classify_nested` takes after the model."""
        return self.input_ids, self.position_ids, self.token_type_ids, self.pooled


@dataclass(frozen=True, kw_only=True)
class NestedCollator:
    """Makes jagged batches for one model.

    Attributes:
        packed: lays the documents end to end.
    """

    packed: PackedCollator

    @torch.inference_mode()  # a jagged view can be made of a tensor made under inference_mode, or of neither
    def collate(self, tokens: TokenizedPairs, batch: PackedPlan) -> NestedBatch:
        """The batch's pairs, and the tokens left over as dummy documents; no document is empty."""
        counts = [max(1, len(tokens.input_ids[row])) for row in batch.rows]
        dummies = -(-(batch.tokens - sum(counts)) // batch.max_tokens)
        return _nested(self.packed.collate(tokens, replace(batch, slots=len(counts) + dummies + 1)))

    def dummy(self, plan: PackedPlan) -> NestedBatch:
        """A batch of dummy documents alone, to warm up on."""
        nothing = TokenizedPairs(input_ids=[], token_type_ids=None, truncated_pairs=0)
        return self.collate(nothing, replace(plan, rows=()))


def _nested(batch: PackedBatch) -> NestedBatch:
    offsets = batch.starts[:-1].long()
    ids, positions = (
        nested_tensor_from_jagged(part, offsets) for part in (batch.input_ids, batch.position_ids)
    )
    types = batch.token_type_ids
    return NestedBatch(
        input_ids=ids,
        position_ids=positions,
        token_type_ids=None if types is None else nested_tensor_from_jagged(types, offsets),
        pooled=batch.pooled,
    )
