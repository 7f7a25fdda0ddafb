"""Token ids of a request -> what all its pairs begin with, and whether to compute that once. Pure integers.

The pairs of a rerank request begin alike: instruction and query stand before the document. In a causal model
no token depends on what comes after it, so keys and values of that beginning are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .packed_plan import SMALLEST_BUDGET, Budgets, plan_packed
from .plan import PackedPlan, Plan

LEAST_SAVED: Final = 32
"""Tokens, padding included; a prefix that saves fewer is not worth a forward pass of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """What all pairs of one request begin with, at least one token.

    It equals nothing but itself, even where another request begins with the same tokens: weights may have
    changed in between.
    """

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SharedPlan(PackedPlan):
    """One packed batch of what pairs have beyond their request's prefix.

    `prefix` is None where nothing is shared. `prefix_tokens` is what the device processes to read the prefix,
    on the batch that comes first, and 0 on the others.
    """

    prefix: Prefix | None
    prefix_tokens: int

    @property
    def all_tokens(self) -> int:
        """Tokens the device will process."""
        return self.tokens + self.prefix_tokens


def prefix_budgets(max_seqlen: int) -> Budgets:
    """The sizes in which a prefix is read, one document: powers of two below max_seqlen, and max_seqlen."""
    powers = (SMALLEST_BUDGET << power for power in range(32))
    sizes = (*(size for size in powers if size < max_seqlen), max_seqlen)
    return Budgets(sizes, max_seqlen, max_seqlen, tokens_per_sequence=(max_seqlen,))


def common_tokens(rows: Sequence[list[int]], unread_id: int | None = None) -> int:
    """How many tokens all rows begin with, each row's last that the head can read not among them.

    Args:
        rows: [N >= 1] token ids.
        unread_id: a token that the head passes over.
    """
    first, last = min(rows), max(rows)  # between them in lexicographic order, all begin as both of them do
    common = next((at for at, both in enumerate(zip(first, last, strict=False)) if both[0] != both[1]), None)
    common = min(len(first), len(last)) if common is None else common
    return max(0, min(common, *(_last_read(ids, unread_id) for ids in rows)))


def _last_read(ids: Sequence[int], unread_id: int | None) -> int:
    """Where the last token stands that the head can read; -1 if there is none."""
    return next((at for at in range(len(ids) - 1, -1, -1) if ids[at] != unread_id), -1)


def plan_shared(
    rows: Sequence[list[int]], budgets: Budgets, read_in: Budgets, unread_id: int | None = None
) -> Plan:
    """All batches of a request, its prefix computed with the first; or none shared, if that saves little.

    Args:
        rows: [N] token ids of the pairs.
        budgets: sizes of the batches.
        read_in: sizes in which a prefix is read.
        unread_id: see `common_tokens`.
    """
    count = common_tokens(rows, unread_id) if len(rows) > 1 else 0
    shared = _plan(rows, count, budgets, read_in)
    if not count or shared.all_tokens + LEAST_SAVED <= shared.real_tokens:
        return shared
    apart = _plan(rows, 0, budgets, read_in)
    return shared if shared.all_tokens + LEAST_SAVED <= apart.all_tokens else apart


def _plan(rows: Sequence[list[int]], count: int, budgets: Budgets, read_in: Budgets) -> Plan:
    """All batches, where so many tokens are computed once."""
    plan = plan_packed([max(1, len(ids) - count) for ids in rows], budgets)
    prefix = Prefix(tuple(rows[0][:count])) if count else None
    batches = []
    for number, batch in enumerate(plan.batches):
        assert isinstance(batch, PackedPlan)
        read = read_in.at_least(count) if count and number == 0 else 0
        batches.append(
            SharedPlan(
                batch.rows, batch.tokens, batch.max_sequences, batch.max_seqlen, prefix, prefix_tokens=read
            )
        )
    shared = count * (len(rows) - 1) if count else 0
    return Plan(tuple(batches), sum(map(len, rows)), shared_tokens=shared)
