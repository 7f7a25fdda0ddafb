"""Queues of tokenized pairs, from which the device's thread takes batches.

`RequestQueue` plans each request separately, once it is tokenized: padded and bucketed batches, and packed
ones with a shared prefix. `PackedQueue` packs pairs of all requests together, first come, first served.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..batching.limit import Limit
from ..batching.packed_plan import MAX_CANDIDATES, Budgets, pack
from ..batching.plan import BatchPlan, PackedPlan, Plan
from ..forks import renewed_in_a_child
from ..text.tokens import PairTokens, TokenizedPairs
from .request import Request

Again = Callable[[Sequence[PairTokens], Any, int], Sequence[BatchPlan | PackedPlan]]
"""The pairs of a batch, its plan, the batch size -> plans of smaller batches; none if it is small enough."""

MOST_WAITING: Final = 64
"""The queue is bounded: stop tokenizing beyond this many token budgets."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One tokenized pair: row `row` of `request`."""

    request: Request
    row: int
    tokens: PairTokens

    @property
    def count(self) -> int:
        """Tokens it occupies; a pair without tokens gets one of padding."""
        return max(1, len(self.tokens.ids))


@dataclass(frozen=True, slots=True)
class NextBatch:
    """Pairs of one batch: documents[i] is in slot i."""

    documents: Sequence[Waiting]
    plan: BatchPlan | PackedPlan

    @property
    def tokens(self) -> list[PairTokens]:
        """The pairs' tokens, by slot."""
        return [document.tokens for document in self.documents]

    @property
    def slots(self) -> dict[Request, list[int]]:
        """The slots of each request's pairs."""
        slots: dict[Request, list[int]] = {}
        for slot, document in enumerate(self.documents):
            slots.setdefault(document.request, []).append(slot)
        return slots

    def part(self, slots: Sequence[int], plan: BatchPlan | PackedPlan | None = None) -> NextBatch:
        """A batch of some of the pairs, of the same size or of another plan's."""
        plan = plan or replace(self.plan, rows=tuple(self.plan.rows[slot] for slot in slots))
        return NextBatch([self.documents[slot] for slot in slots], plan)


class BatchQueue(ABC):
    """Reader threads add tokenized pairs, the device's thread takes batches."""

    chunk: int | None = None
    """Pairs to tokenize at a time; None for whole requests."""

    def __init__(self) -> None:
        self._at_fork_reinit()
        renewed_in_a_child(self)

    @abstractmethod
    def _at_fork_reinit(self) -> None:
        """Empty the queue."""

    @abstractmethod
    def add(self, request: Request, tokens: TokenizedPairs) -> None:
        """Add the next pairs of a request, in the caller's order."""

    @abstractmethod
    def next_batch(self) -> NextBatch | None:
        """The next batch; None if more pairs must be tokenized first."""

    @abstractmethod
    def put_back(self, batch: NextBatch) -> None:
        """The pairs of a batch that did not fit are next again, in batches as they are planned now."""

    def pause(self, request: Request) -> bool:  # noqa: ARG002
        """Whether the queue is full; if so, stop tokenizing this request until `resume` returns it."""
        return False

    def resume(self) -> Sequence[Request]:
        """Paused requests that fit again; call it after `next_batch`."""
        return ()


class RequestQueue(BatchQueue):
    """Whole requests, each planned separately, first come, first served.

    Args:
        plan: the pairs of a request and its batch size -> its batches.
        again: see `Again`.
    """

    def __init__(self, plan: Callable[[TokenizedPairs, int], Plan], again: Again = lambda *_: ()) -> None:
        self._plan, self._again = plan, again
        super().__init__()

    def _at_fork_reinit(self) -> None:
        self._batches: deque[NextBatch] = deque()

    def add(self, request: Request, tokens: TokenizedPairs) -> None:
        """Add all pairs of a request."""
        waiting = _waiting(request, tokens)
        plan = self._plan(tokens, request.batch_size)
        request.shared_tokens = plan.shared_tokens
        batches = [NextBatch([waiting[row] for row in each.rows], each) for each in plan.batches]
        self._batches.extend(batches)  # adjacent, so that a prefix they share is computed once

    def next_batch(self) -> NextBatch | None:
        """The next batch of the oldest request that is not dropped."""
        while self._batches:
            batch = self._batches.popleft()
            request = batch.documents[0].request
            if request.dropped:
                continue
            plans = self._again(batch.tokens, batch.plan, request.batch_size)
            if not plans:
                return batch
            unshared = batch.plan.shared_tokens - sum(plan.shared_tokens for plan in plans)
            request.shared_tokens = max(0, request.shared_tokens - unshared)
            self._batches.extendleft(batch.part(plan.rows, plan) for plan in reversed(plans))
        return None

    def put_back(self, batch: NextBatch) -> None:
        """It is planned again when its turn comes, which is now, as are those planned before it failed."""
        self._batches.appendleft(batch)


class PackedQueue(BatchQueue):
    """Pairs of all requests, packed together, first come, first served.

    While the oldest pair's request is still being tokenized, no batch is made until enough pairs wait to
    choose from. So a single request is packed the same way each time.

    Args:
        budgets: the sizes of batches.
        limit: what fits the device's memory, as others write it.
    """

    chunk = 64

    def __init__(self, budgets: Budgets, limit: Limit | None = None) -> None:
        self._budgets, self._limit = budgets, limit or Limit()
        super().__init__()

    def _at_fork_reinit(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self._tokens = 0
        self._paused: list[Request] = []
        self._lock = threading.Lock()

    def add(self, request: Request, tokens: TokenizedPairs) -> None:
        """Add the next pairs of a request."""
        with self._lock:
            waiting = _waiting(request, tokens)
            self._waiting.extend(waiting)
            self._tokens += sum(document.count for document in waiting)

    def next_batch(self) -> NextBatch | None:
        """The oldest pair, with the others that fill its batch best."""
        with self._lock:
            budgets = self._budgets.within(self._limit)
            candidates = self._candidates(budgets.enough)
            oldest = candidates[0].request if candidates else None
            if oldest is None or (oldest.unread and self._tokens < budgets.enough):
                self._waiting.extendleft(reversed(candidates))
                return None
            plan = pack([document.count for document in candidates], budgets)
            chosen = set(plan.rows)
            self._waiting.extendleft(
                document for row, document in reversed([*enumerate(candidates)]) if row not in chosen
            )
            self._tokens -= sum(candidates[row].count for row in plan.rows)
        return NextBatch([candidates[row] for row in plan.rows], plan)

    def put_back(self, batch: NextBatch) -> None:
        """The oldest first again: the rows of a plan are in the order in which its pairs waited."""
        oldest = sorted(range(len(batch.documents)), key=lambda slot: batch.plan.rows[slot])
        with self._lock:
            self._waiting.extendleft(batch.documents[slot] for slot in reversed(oldest))
            self._tokens += sum(document.count for document in batch.documents)

    def _candidates(self, enough: int) -> list[Waiting]:
        """Remove the pairs that a batch is chosen from, and pairs of dropped requests before them."""
        candidates: list[Waiting] = []
        tokens = 0
        dropped: dict[Request, bool] = {}  # `Request.dropped` takes a lock
        while self._waiting and len(candidates) < MAX_CANDIDATES and tokens < enough:
            document = self._waiting.popleft()
            count, request = document.count, document.request
            if request not in dropped:
                dropped[request] = request.dropped
            if dropped[request]:
                self._tokens -= count
            else:
                candidates.append(document)
                tokens += count
        return candidates

    def pause(self, request: Request) -> bool:
        """True beyond MOST_WAITING token budgets."""
        with self._lock:
            full = self._full
            if full:
                self._paused.append(request)
            return full

    @property
    def _full(self) -> bool:
        return self._tokens > MOST_WAITING * self._budgets.within(self._limit).usual

    def resume(self) -> Sequence[Request]:
        """All paused requests, once the queue is no longer full."""
        with self._lock:
            if self._full:
                return ()
            paused, self._paused = self._paused, []
            return paused


def _waiting(request: Request, tokens: TokenizedPairs) -> list[Waiting]:
    """The request's next pairs, which it no longer counts as unread."""
    first = len(request.pairs) - request.unread
    request.note_read(tokens)
    return [Waiting(request, first + row, pair) for row, pair in enumerate(tokens.pairs)]
