"""Token counts -> packed batches: which pairs fill a token budget together. Pure integers.

Filling a budget as full as it gets is the subset-sum problem. Budgets are small integers, so it is solved
exactly: the reachable sums are the bits of one Python integer, and adding a pair shifts them (Bellman 1957,
"Dynamic Programming"; one machine word then handles 64 sums at once).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..errors import ExecutionError
from ..execution import TokenBudgets
from .plan import PackedPlan, Plan

FEWEST_PER_SEQUENCE: Final = 8
"""A batch of T tokens has places for T / 8 documents at most; shorter ones close it before it is full."""

SMALLEST_BUDGET: Final = 32

LOOK_AHEAD: Final = 12
"""How many of the longest pairs may wait beyond a usual budget, for a batch to be chosen from."""

MOST_LOOK_AHEAD: Final = 3
"""Usual budgets that may wait beyond one, however long the longest pair."""

MAX_CANDIDATES: Final = 1024

SEARCHED: Final = 2048
"""Tokens left in a batch from which it is searched what fills them; before, pairs are taken as they come."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The sizes that packed batches may have.

    Attributes:
        sizes: in tokens, ascending; the last holds any pair.
        usual: the size to fill; larger ones are for pairs that it does not hold.
        max_seqlen: no pair has more tokens.
        tokens_per_sequence: a batch has about one place for a document in so many tokens; of several numbers,
            the largest that leaves a place for each.
    """

    sizes: tuple[int, ...]
    usual: int
    max_seqlen: int
    tokens_per_sequence: tuple[int, ...] = (FEWEST_PER_SEQUENCE,)

    @property
    def enough(self) -> int:
        """Waiting tokens from which a batch can be chosen well."""
        return self.usual + min(LOOK_AHEAD * self.max_seqlen, MOST_LOOK_AHEAD * self.usual)

    def at_least(self, tokens: int) -> int:
        """The smallest size that holds so many tokens, or the largest there is."""
        return self.sizes[min(bisect_left(self.sizes, tokens), len(self.sizes) - 1)]

    def max_sequences(self, size: int) -> tuple[int, ...]:
        """How many places a batch of a size may have, ascending: for pairs, and for dummies of what is left.

        Even, so that the tensors laid out behind each other in one buffer stay aligned.
        """
        spare = self._dummies(size) + 1
        slots = (size // tokens + spare for tokens in self.tokens_per_sequence)
        return tuple(sorted({each + each % 2 for each in slots}))

    def most_documents(self, size: int) -> int:
        """Pairs that surely leave a slot for each dummy document."""
        return self.max_sequences(size)[-1] - self._dummies(size)

    def _dummies(self, left: int) -> int:
        """Documents that fill the tokens left over."""
        return -(-left // self.max_seqlen)

    def plan(self, rows: Sequence[int], tokens: int, size: int) -> PackedPlan:
        """A batch of a size for rows of so many tokens together, in as few slots as hold it."""
        documents = len(rows) + self._dummies(size - tokens)
        slots = next(each for each in self.max_sequences(size) if each >= documents)
        return PackedPlan(tuple(rows), size, slots, self.max_seqlen)


def token_budgets(
    spec: TokenBudgets, max_seqlen: int, *, usual: int, single: bool = False,
    tokens_per_sequence: tuple[int, ...] = (FEWEST_PER_SEQUENCE,),
) -> Budgets:  # fmt: skip
    """The sizes that an execution allows.

    Derived ones are powers of two up to a sixteenth of the usual size, and from there its multiples: a
    batch that ends a request is then about 3% too large on average, and a small request is still one batch.

    Args:
        spec: `Execution.token_budgets`; None means `usual`.
        max_seqlen: the most tokens a pair may have.
        usual: the size to fill where the caller gave none.
        single: one size alone.
        tokens_per_sequence: see `Budgets`.

    Raises:
        ExecutionError: given sizes of which none holds the longest pair.
    """
    if isinstance(spec, tuple):
        if spec[-1] < max_seqlen:
            raise ExecutionError(
                f"token_budgets={spec!r}: a pair of max_length={max_seqlen} tokens fits none. Give a largest "
                f"budget of at least {max_seqlen}, or lower max_length to {spec[-1]}."
            )
        return Budgets(spec, spec[-1], max_seqlen, tokens_per_sequence=tokens_per_sequence)
    usual = spec or usual
    if single:
        size = max(usual, max_seqlen)
        return Budgets((size,), size, max_seqlen, tokens_per_sequence=tokens_per_sequence)
    step = max(SMALLEST_BUDGET, -(-usual // 16))
    small = {SMALLEST_BUDGET << power for power in range(32) if SMALLEST_BUDGET << power < step}
    large = {usual << power for power in range(1, 32) if usual << power < max_seqlen}
    sizes = small | set(range(step, usual, step)) | large | {usual, max(usual, max_seqlen)}
    return Budgets(tuple(sorted(sizes)), usual, max_seqlen, tokens_per_sequence=tokens_per_sequence)


def pack(counts: Sequence[int], budgets: Budgets) -> PackedPlan:
    """Choose the pairs of the next batch: the first pair, and those others that fill the budget best.

    Among the fullest choices it takes the one with the earliest pairs. If all pairs fit in one batch they
    share the smallest budget that holds them.

    Args:
        counts: [N >= 1] true token counts of waiting pairs, the one that has waited longest first.
        budgets: allowed sizes.

    Returns:
        A plan whose rows stand longest first, so that documents of equal length are neighbours.
    """
    target = max(budgets.usual, budgets.at_least(counts[0]))
    limit = budgets.most_documents(target)
    chosen = [0, *(1 + index for index in _fullest(counts[1:], target - counts[0], limit - 1))]
    tokens = sum(counts[row] for row in chosen)
    large_enough = [size for size in budgets.sizes if budgets.at_least(tokens) <= size <= target]
    size = next(
        size for size in large_enough if len(chosen) <= budgets.most_documents(size) or size == target
    )
    return budgets.plan(sorted(chosen, key=lambda row: -counts[row]), tokens, size)


def _fullest(counts: Sequence[int], room: int, limit: int) -> list[int]:
    """Indices of counts whose sum comes closest to `room` from below, among them the earliest.

    Where those are more than `limit`, the longest of all go first instead, and at most `limit` of them.
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
    """Indices of counts whose sum comes closest to `room` from below; of all such, those that come first.

    Where the first counts and some of the others fill the room to the last token, that is the answer, and
    sums up to about `searched` are all that had to be known for it.
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
    """All batches of a request that is alone, in the order in which they run.

    Args:
        counts: [N] true token counts, each at least 1.
        budgets: allowed sizes.
    """
    waiting = list(range(len(counts)))
    batches = []
    while waiting:
        window = candidates([counts[row] for row in waiting[:MAX_CANDIDATES]], budgets)
        plan = pack([counts[row] for row in waiting[:window]], budgets)
        rows = tuple(waiting[index] for index in plan.rows)
        batches.append(replace(plan, rows=rows))
        taken = set(rows)
        waiting = [row for row in waiting[:window] if row not in taken] + waiting[window:]
    return Plan(tuple(batches), sum(counts))


def candidates(counts: Sequence[int], budgets: Budgets) -> int:
    """From how many of the waiting pairs, oldest first, a batch is chosen."""
    tokens = 0
    for index, count in enumerate(counts[:MAX_CANDIDATES]):
        tokens += count
        if tokens >= budgets.enough:
            return index + 1
    return min(len(counts), MAX_CANDIDATES)


def warmup_plans(budgets: Budgets) -> tuple[PackedPlan, ...]:
    """An empty batch of every size with every number of slots, largest first.

    It starts with one whose size differs from max_seqlen: torch.compile(dynamic=True) ties two numbers
    together that are equal when it first traces them.
    """
    plans = [
        PackedPlan((), size, slots, budgets.max_seqlen)
        for size in reversed(budgets.sizes)
        for slots in reversed(budgets.max_sequences(size))
    ]
    return tuple(sorted(plans, key=lambda plan: plan.tokens == budgets.max_seqlen))
