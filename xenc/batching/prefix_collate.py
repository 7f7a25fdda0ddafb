"""Tokens of a batch's pairs -> PrefixedBatch: packed, without the prefix that the pairs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..text.tokens import PairTokens
from .packed_collate import PackedBatch, PackedCollator
from .packed_plan import Budgets, plan_packed
from .plan import PackedPlan
from .prefix_plan import Prefix, SharedPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixedBatch:
    """One packed batch, and the prefix of its documents.

    Attributes:
        packed: T tokens in N slots; each document's position_ids continue the prefix's.
        prefix: the prefix that the documents share, or None.
        cache: [layers, 2, P, K, D], the prefix's keys and values; None until it has been read.
        prefix_cu_seqlens: int32 [2], 0 and the prefix's tokens in the cache; None until it has been read.
    """

    packed: PackedBatch
    prefix: Prefix | None
    cache: Tensor | None = None
    prefix_cu_seqlens: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return self.packed.shape

    @property
    def arguments(self) -> tuple[Tensor | int | None, ...]:
        """Arguments of `models.prefix_forward.classify_after_prefix` after the model."""
        return *self.packed.arguments, self.cache, self.prefix_cu_seqlens


@dataclass(frozen=True, kw_only=True)
class PrefixCollator:
    """Packs batches whose documents share a prefix, and the prefix itself.

    Attributes:
        packed: the same model's collator without prefixes.
        read_in: the batch sizes in which a prefix is read.
    """

    packed: PackedCollator
    read_in: Budgets

    def collate(self, pairs: Sequence[PairTokens], batch: SharedPlan) -> PrefixedBatch:
        """Lay out whole pairs without the tokens of the batch's prefix."""
        count = 0 if batch.prefix is None else len(batch.prefix.ids)
        own = [PairTokens(pair.ids[count:], pair.types and pair.types[count:]) for pair in pairs]
        collator = replace(self.packed, first_position=self.packed.first_position + count)
        return PrefixedBatch(packed=collator.collate(own, batch), prefix=batch.prefix)

    def lay_out(self, prefix: Prefix) -> PackedBatch:
        """The prefix as the first document of a packed batch."""
        [plan] = plan_packed([len(prefix.ids)], self.read_in).batches
        assert isinstance(plan, PackedPlan)
        return self.packed.collate([PairTokens(list(prefix.ids))], plan)

    def dummy(self, plan: PackedPlan, prefix_tokens: int = 0) -> PrefixedBatch:
        """A batch of dummy documents, after a prefix of this much padding."""
        prefix = Prefix((self.packed.pad_id,) * prefix_tokens) if prefix_tokens else None
        return PrefixedBatch(packed=self.packed.dummy(plan), prefix=prefix)
