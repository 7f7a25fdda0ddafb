"""Token ids of a request -> the prefix that its pairs share, and whether to compute it once. Pure integers.

The pairs of a rerank request start alike: instruction and query come before the document. In a causal model
no token depends on later ones, so the keys and values of that prefix are the same for all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .packed_plan import SMALLEST_BUDGET, Budgets, plan_packed
from .plan import PackedPlan, Plan

LEAST_SAVED: Final = 32
"""Tokens, padding included; saving fewer does not pay for the forward pass that reads the prefix."""


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """The prefix of one request's pairs, at least one token.

    It equals only itself, not an equal prefix of another request: weights may have changed in between.
    """

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SharedPlan(PackedPlan):
    """One packed batch of pairs without their request's prefix.

    `prefix` is None if nothing is shared. `prefix_tokens` is how many tokens the device processes to read
    the prefix; 0 after the first batch.
    """

    prefix: Prefix | None
    prefix_tokens: int

    @property
    def all_tokens(self) -> int:
        """Tokens that the device processes."""
        return self.tokens + self.prefix_tokens

    @property
    def shared_tokens(self) -> int:
        """Tokens of its pairs that are computed once, for all of them."""
        return 0 if self.prefix is None else len(self.prefix.ids) * len(self.rows)


def prefix_budgets(max_seqlen: int) -> Budgets:
    """The batch sizes in which a prefix is read: powers of two below max_seqlen, and max_seqlen."""
    powers = (SMALLEST_BUDGET << power for power in range(32))
    sizes = (*(size for size in powers if size < max_seqlen), max_seqlen)
    return Budgets(sizes, max_seqlen, max_seqlen, tokens_per_sequence=(max_seqlen,))


def common_tokens(rows: Sequence[list[int]], unread_id: int | None = None) -> int:
    """The length of the common prefix of N >= 1 rows of token ids.

    Each row keeps a token that the head can read, if it has one other than `unread_id`.
    """
    first, last = min(rows), max(rows)  # all other rows are between them, and share what they share
    common = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return max(0, min(common, *(_last_read(ids, unread_id) for ids in rows)))


def _last_read(ids: Sequence[int], unread_id: int | None) -> int:
    """The index of the last token that the head can read; -1 if there is none."""
    return next((at for at in range(len(ids) - 1, -1, -1) if ids[at] != unread_id), -1)


def plan_shared(
    rows: Sequence[list[int]], budgets: Budgets, read_in: Budgets, unread_id: int | None = None
) -> Plan:
    """All batches of a request; the first also reads the prefix. No prefix is shared if that saves little.

    `rows` are the token ids of N pairs, `budgets` the sizes of their batches, `read_in` the sizes of the
    batches that read a prefix, and `unread_id` a token that the head skips.
    """
    count = common_tokens(rows, unread_id) if len(rows) > 1 else 0
    if not read_in.fits(read_in.at_least(count)):
        count = 0
    shared = _plan(rows, count, budgets, read_in)
    if not count or shared.all_tokens + LEAST_SAVED <= shared.real_tokens:
        return shared
    apart = _plan(rows, 0, budgets, read_in)
    return shared if shared.all_tokens + LEAST_SAVED <= apart.all_tokens else apart


def _plan(rows: Sequence[list[int]], count: int, budgets: Budgets, read_in: Budgets) -> Plan:
    """All batches, if the first `count` tokens are computed once."""
    prefix, read = (Prefix(tuple(rows[0][:count])), read_in.at_least(count)) if count else (None, 0)
    batches = after_prefix([len(ids) for ids in rows], budgets, prefix, read)
    return Plan(batches, sum(map(len, rows)), shared_tokens=count * max(0, len(rows) - 1))


def after_prefix(
    counts: Sequence[int], budgets: Budgets, prefix: Prefix | None, read: int
) -> tuple[SharedPlan, ...]:
    """Batches of pairs with counts [N] that begin with a prefix; the first reads it in `read` tokens."""
    shared = 0 if prefix is None else len(prefix.ids)
    batches: list[SharedPlan] = []
    for batch in plan_packed([max(1, count - shared) for count in counts], budgets).batches:
        assert isinstance(batch, PackedPlan)
        own = batch.tokens, batch.max_sequences, batch.max_seqlen
        batches.append(SharedPlan(batch.rows, *own, prefix, prefix_tokens=0 if batches else read))
    return tuple(batches)
