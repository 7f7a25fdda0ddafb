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
    """One packed batch, and what stands before each of its documents.

    Attributes:
        packed: T tokens in N slots; position_ids of each document begin where the prefix ends.
        prefix: what the documents share, or None.
        cache: [layers, 2, P, K, D], the prefix's keys and values; None until it has been read.
        prefix_cu_seqlens: int32 [2], 0 and how many tokens of the cache are the prefix's; None as well.
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
        """What `forward.classify_after_prefix` takes after the model."""
        return *self.packed.arguments, self.cache, self.prefix_cu_seqlens


@dataclass(frozen=True, kw_only=True)
class PrefixCollator:
    """Packs batches whose documents have a prefix, and the prefix itself.

    Attributes:
        packed: packs for the same model without.
        read_in: the sizes in which a prefix is read.
    """

    packed: PackedCollator
    read_in: Budgets

    def collate(self, pairs: Sequence[PairTokens], batch: SharedPlan) -> PrefixedBatch:
        """Lay out what pairs have beyond the batch's prefix; `pairs` are whole ones."""
        count = 0 if batch.prefix is None else len(batch.prefix.ids)
        own = [PairTokens(pair.ids[count:], pair.types and pair.types[count:]) for pair in pairs]
        collator = replace(self.packed, first_position=self.packed.first_position + count)
        return PrefixedBatch(packed=collator.collate(own, batch), prefix=batch.prefix)

    def lay_out(self, prefix: Prefix) -> PackedBatch:
        """The prefix as a packed batch, whose first document it is."""
        [plan] = plan_packed([len(prefix.ids)], self.read_in).batches
        assert isinstance(plan, PackedPlan)
        return self.packed.collate([PairTokens(list(prefix.ids))], plan)

    def dummy(self, plan: PackedPlan, prefix_tokens: int = 0) -> PrefixedBatch:
        """A batch of dummy documents, after a prefix of padding if there is to be one."""
        prefix = Prefix((self.packed.pad_id,) * prefix_tokens) if prefix_tokens else None
        return PrefixedBatch(packed=self.packed.dummy(plan), prefix=prefix)
