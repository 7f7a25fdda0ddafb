"""Queues of tokenized pairs, from which the device's thread takes batches.

`RequestQueue` plans each request separately, once it is tokenized: padded and bucketed batches, and packed
ones with a shared prefix. `PackedQueue` packs pairs of all requests together, first come, first served.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..batching.packed_plan import MAX_CANDIDATES, Budgets, pack
from ..batching.plan import BatchPlan, PackedPlan, Plan
from ..forks import renewed_in_a_child
from ..text.tokens import PairTokens, TokenizedPairs
from .request import Request

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

    def pause(self, request: Request) -> bool:  # noqa: ARG002
        """Whether the queue is full; if so, stop tokenizing this request until `resume` returns it."""
        return False

    def resume(self) -> Sequence[Request]:
        """Paused requests that fit again; call it after `next_batch`."""
        return ()


class RequestQueue(BatchQueue):
    """Whole requests, each planned separately, first come, first served."""

    def __init__(self, plan: Callable[[TokenizedPairs, int], Plan]) -> None:
        self._plan = plan
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
            if not batch.documents[0].request.dropped:
                return batch
        return None


class PackedQueue(BatchQueue):
    """Pairs of all requests, packed together, first come, first served.

    While the oldest pair's request is still being tokenized, no batch is made until enough pairs wait to
    choose from. So a single request is packed the same way each time.
    """

    chunk = 64

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
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
            candidates = self._candidates()
            oldest = candidates[0].request if candidates else None
            if oldest is None or (oldest.unread and self._tokens < self._budgets.enough):
                self._waiting.extendleft(reversed(candidates))
                return None
            plan = pack([document.count for document in candidates], self._budgets)
            chosen = set(plan.rows)
            self._waiting.extendleft(
                document for row, document in reversed([*enumerate(candidates)]) if row not in chosen
            )
            self._tokens -= sum(candidates[row].count for row in plan.rows)
        return NextBatch([candidates[row] for row in plan.rows], plan)

    def _candidates(self) -> list[Waiting]:
        """Remove the pairs that a batch is chosen from, and pairs of dropped requests before them."""
        candidates: list[Waiting] = []
        tokens, enough = 0, self._budgets.enough
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
            full = self._tokens > MOST_WAITING * self._budgets.usual
            if full:
                self._paused.append(request)
            return full

    def resume(self) -> Sequence[Request]:
        """All paused requests, once the queue is no longer full."""
        with self._lock:
            if self._tokens > MOST_WAITING * self._budgets.usual:
                return ()
            paused, self._paused = self._paused, []
            return paused


def _waiting(request: Request, tokens: TokenizedPairs) -> list[Waiting]:
    """The request's next pairs, which it no longer counts as unread."""
    first = len(request.pairs) - request.unread
    request.note_read(tokens)
    return [Waiting(request, first + row, pair) for row, pair in enumerate(tokens.pairs)]
