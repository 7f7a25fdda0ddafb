"""Token counts -> packed batches: which pairs fill a token budget together. Pure integers.

Filling a budget is the subset-sum problem. Budgets are small integers, so it is solved exactly: the reachable
sums are the bits of one Python integer, and adding a pair shifts them (Bellman 1957, "Dynamic Programming";
one machine word then handles 64 sums at once).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from ..errors import ExecutionError
from ..execution import TokenBudgets
from .limit import Limit
from .plan import PackedPlan, Plan

FEWEST_PER_SEQUENCE: Final = 8
"""A batch of T tokens has slots for T / 8 documents at most; shorter documents run out of slots first."""

SMALLEST_BUDGET: Final = 32

LOOK_AHEAD: Final = 12
"""A batch is chosen from its budget and this many of the longest pairs..."""

MOST_LOOK_AHEAD: Final = 3
"""...or this many further budgets, if those are fewer tokens."""

MAX_CANDIDATES: Final = 1024

SEARCHED: Final = 2048
"""The search fills the last tokens of a batch, about this many; pairs are taken in order before."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The sizes that packed batches may have.

    Attributes:
        sizes: in tokens, ascending; the last holds any pair.
        usual: the size to fill; larger ones are for pairs that do not fit into it.
        max_seqlen: the most tokens of a pair.
        tokens_per_sequence: a batch has about one slot per this many tokens; of several numbers, the largest
            with enough slots.
        unfit: a batch of this size or a larger one holds one pair alone; None if there is no such size.
    """

    sizes: tuple[int, ...]
    usual: int
    max_seqlen: int
    tokens_per_sequence: tuple[int, ...] = (FEWEST_PER_SEQUENCE,)
    unfit: int | None = None

    @property
    def enough(self) -> int:
        """Waiting tokens from which a batch can be filled well."""
        return self.usual + min(LOOK_AHEAD * self.max_seqlen, MOST_LOOK_AHEAD * self.usual)

    def within(self, limit: Limit) -> Budgets:
        """The sizes that fit the memory, as far as is known, and larger ones if a pair needs them."""
        if limit.most is None:
            return self
        usual = self.sizes[max(0, bisect_right(self.sizes, min(limit.most, self.usual)) - 1)]
        largest = max(usual, self.at_least(self.max_seqlen))
        sizes = tuple(size for size in self.sizes if size <= largest)
        return replace(self, sizes=sizes, usual=usual, unfit=limit.unfit)

    def fits(self, size: int) -> bool:
        """Whether it is one of the sizes, and not known to be too large."""
        return size in self.sizes and (self.unfit is None or size < self.unfit)

    def allow(self, size: int, counts: Sequence[int]) -> bool:
        """Whether pairs of these token counts may share a batch of this size."""
        return size <= max(self.usual, self.at_least(max(counts))) and (self.fits(size) or len(counts) == 1)

    def at_least(self, tokens: int) -> int:
        """The smallest size that holds this many tokens, or the largest size."""
        return self.sizes[min(bisect_left(self.sizes, tokens), len(self.sizes) - 1)]

    def max_sequences(self, size: int) -> tuple[int, ...]:
        """The numbers of slots that a batch of this size may have, ascending.

        Even, so that the tensors behind each other in one buffer stay aligned.
        """
        spare = self.dummies(size) + 1
        slots = (size // tokens + spare for tokens in self.tokens_per_sequence)
        return tuple(sorted({each + each % 2 for each in slots}))

    def most_documents(self, size: int) -> int:
        """The most pairs that leave a slot for each dummy document, whatever their lengths."""
        return self.max_sequences(size)[-1] - self.dummies(size)

    def dummies(self, left: int) -> int:
        """How many dummy documents fill the tokens left over."""
        return -(-left // self.max_seqlen)


def token_budgets(
    spec: TokenBudgets, max_seqlen: int, *, usual: int, single: bool = False,
    tokens_per_sequence: tuple[int, ...] = (FEWEST_PER_SEQUENCE,),
) -> Budgets:  # fmt: skip
    """The batch sizes of an execution.

    Derived sizes are powers of two, then multiples of a 32nd of the usual size up to its half, then of a
    sixteenth: on average the last batch of a request is about 3% too large, and a small request is one batch.

    Args:
        spec: `Execution.token_budgets`; None means `usual`.
        max_seqlen: the most tokens of a pair.
        usual: the size to fill where `spec` gives none.
        single: only one size.
        tokens_per_sequence: see `Budgets`.

    Raises:
        ExecutionError: explicit sizes that do not hold the longest pair.
    """
    if isinstance(spec, tuple):
        if spec[-1] < max_seqlen:
            raise ExecutionError(
                f"token_budgets={spec!r}: a pair of max_length={max_seqlen} tokens fits none. Give a largest "
                f"budget of at least {max_seqlen}, or lower max_length to {spec[-1]}."
            )
        return Budgets(spec, spec[-1], max_seqlen, tokens_per_sequence)
    usual = spec or usual
    largest = max(usual, max_seqlen)
    if single:
        return Budgets((largest,), largest, max_seqlen, tokens_per_sequence)
    step, fine = (max(SMALLEST_BUDGET, -(-usual // parts)) for parts in (16, 32))
    small = {SMALLEST_BUDGET << power for power in range(32) if SMALLEST_BUDGET << power < fine}
    large = {usual << power for power in range(32) if usual << power < largest}
    steps = {
        *range(fine, usual // 2, fine),
        *(size for size in range(step, usual, step) if 2 * size >= usual),
    }
    sizes = small | steps | large | {largest}
    return Budgets(tuple(sorted(sizes)), usual, max_seqlen, tokens_per_sequence)


def pack(counts: Sequence[int], budgets: Budgets) -> PackedPlan:
    """The next batch: the first pair, and the other pairs that fill the budget best.

    Of equally full choices it takes the one with the earliest pairs. If all pairs fit into one batch, it has
    the smallest budget that holds them. A pair that needs a size known not to fit is alone.

    Args:
        counts: [N >= 1] token counts of waiting pairs, oldest first.
        budgets: allowed sizes.

    Returns:
        A plan with the longest rows first, so that documents of equal length are neighbours.
    """
    target = max(budgets.usual, budgets.at_least(counts[0]))
    alone = budgets.unfit is not None and target >= budgets.unfit
    limit = 1 if alone else budgets.most_documents(target)
    chosen = [0, *(1 + index for index in _fullest(counts[1:], target - counts[0], limit - 1))]
    tokens = sum(counts[row] for row in chosen)
    sizes = (size for size in budgets.sizes if tokens <= size)
    size = next(size for size in sizes if len(chosen) <= budgets.most_documents(size))
    documents = len(chosen) + budgets.dummies(size - tokens)
    slots = next(slots for slots in budgets.max_sequences(size) if slots >= documents)
    rows = sorted(chosen, key=lambda row: -counts[row])
    return PackedPlan(tuple(rows), size, slots, budgets.max_seqlen)


def _fullest(counts: Sequence[int], room: int, limit: int) -> list[int]:
    """Indices of counts with the largest sum up to `room`; of all such, the earliest.

    If those are more than `limit`, the search prefers the longest, and at most `limit` of them are taken.
    """
    if sum(counts) <= room and len(counts) <= limit:
        return list(range(len(counts)))
    earliest = _fullest_in_order(counts, room)
    if len(earliest) <= limit:
        return earliest
    longest_first = sorted(range(len(counts)), key=lambda index: -counts[index])
    longest = _fullest_in_order([counts[index] for index in longest_first], room)
    return sorted(longest_first[index] for index in longest[:limit])


def _fullest_in_order(counts: Sequence[int], room: int, searched: int = SEARCHED) -> list[int]:
    """Indices of counts with the largest sum up to `room`; of all such, those that come first.

    If the first counts and some later ones fill the room exactly, that is the answer, and only sums up to
    about `searched` have to be computed.
    """
    first, left = 0, room
    while first < len(counts) and counts[first] + searched <= left:
        left -= counts[first]
        first += 1
    others = [first + index for index in _search(counts[first:], left)]
    if first and sum(counts[index] for index in others) < left:
        return _search(counts, room)
    return [*range(first), *others]


def _search(counts: Sequence[int], room: int) -> list[int]:
    """The same, from all sums up to `room`."""
    within = (1 << (room + 1)) - 1
    reachable = [1]  # bit s of the last: some of the counts from here on sum up to s
    for count in reversed(counts):
        reachable.append(reachable[-1] | reachable[-1] << count & within)
    left = reachable[-1].bit_length() - 1
    chosen: list[int] = []
    for index, count in enumerate(counts):
        if count <= left and reachable[len(counts) - index - 1] >> (left - count) & 1:
            chosen.append(index)
            left -= count
    return chosen


def plan_packed(counts: Sequence[int], budgets: Budgets) -> Plan:
    """All batches of one request of N pairs with counts [N] >= 1, in the order in which they run."""
    waiting = list(range(len(counts)))
    batches = []
    while waiting:
        totals = list(accumulate(counts[row] for row in waiting[:MAX_CANDIDATES]))
        candidates = waiting[: min(1 + bisect_left(totals, budgets.enough), len(totals))]
        plan = pack([counts[row] for row in candidates], budgets)
        rows = tuple(candidates[index] for index in plan.rows)
        batches.append(replace(plan, rows=rows))
        waiting[: len(candidates)] = sorted(set(candidates) - set(rows))
    return Plan(tuple(batches), sum(counts))


def warmup_plans(budgets: Budgets) -> tuple[PackedPlan, ...]:
    """An empty batch of every size with every number of slots, largest first.

    But the first has a size other than max_seqlen: torch.compile(dynamic=True) makes one symbol of two
    numbers that are equal in the first trace.
    """
    plans = [
        PackedPlan((), size, slots, budgets.max_seqlen)
        for size in reversed(budgets.sizes)
        for slots in reversed(budgets.max_sequences(size))
    ]
    return tuple(sorted(plans, key=lambda plan: plan.tokens == budgets.max_seqlen))
