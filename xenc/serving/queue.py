"""Tokenized pairs of all requests -> the next batch. What waits here waits for the device.

`RequestQueue` plans each request by itself, once all its tokens are known: padded and bucketed batches, and
packed ones after a shared prefix. `PackedQueue` packs pairs of any requests together, in the order in which
they came.
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
from ..text.tokens import PairTokens, TokenizedPairs
from .request import Request

MOST_WAITING: Final = 64
"""The queue is bounded: no more is tokenized while more than this many token budgets wait."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One tokenized pair: row `row` of `request`."""

    request: Request
    row: int
    tokens: PairTokens

    @property
    def count(self) -> int:
        """Tokens it takes; a pair of none is shown one of padding."""
        return max(1, len(self.tokens.ids))


@dataclass(frozen=True, slots=True)
class NextBatch:
    """Pairs that run together: documents[i] stands in slot i."""

    documents: Sequence[Waiting]
    plan: BatchPlan | PackedPlan

    @property
    def tokens(self) -> list[PairTokens]:
        """The pairs' tokens, in the order of the slots."""
        return [document.tokens for document in self.documents]

    @property
    def requests(self) -> set[Request]:
        """Whose pairs they are."""
        return {document.request for document in self.documents}

    def only(self, request: Request) -> NextBatch:
        """The same batch with one request's pairs in it."""
        return NextBatch([each for each in self.documents if each.request is request], self.plan)


class BatchQueue(ABC):
    """Readers put tokenized pairs in, the device's thread takes batches out."""

    chunk: int | None = None
    """How many pairs to tokenize at a time; None for a whole request."""

    @abstractmethod
    def add(self, request: Request, tokens: TokenizedPairs) -> None:
        """Put in the next pairs of a request, in the caller's order."""

    @abstractmethod
    def next_batch(self) -> NextBatch | None:
        """The next batch, or None if there is none before more is tokenized."""

    def pause(self, request: Request) -> bool:  # noqa: ARG002
        """Whether so much waits that tokenizing this request should rest until `resume` names it."""
        return False

    def resume(self) -> Sequence[Request]:
        """Requests to go on tokenizing; ask after `next_batch`."""
        return ()


class RequestQueue(BatchQueue):
    """Whole requests, each planned by itself, first come, first served."""

    def __init__(self, plan: Callable[[TokenizedPairs, int], Plan]) -> None:
        self._plan = plan
        self._batches: deque[NextBatch] = deque()

    def add(self, request: Request, tokens: TokenizedPairs) -> None:
        """All pairs of a request."""
        request.note_read(tokens)
        waiting = _waiting(request, tokens, first=0)
        plan = self._plan(tokens, request.batch_size)
        request.note_shared(plan.shared_tokens)
        batches = [NextBatch([waiting[row] for row in each.rows], each) for each in plan.batches]
        self._batches.extend(batches)  # all at once: they may share a prefix, which is read once

    def next_batch(self) -> NextBatch | None:
        """The next batch of the oldest request that somebody still waits for."""
        while self._batches:
            batch = self._batches.popleft()
            if not batch.documents[0].request.dropped:
                return batch
        return None


class PackedQueue(BatchQueue):
    """Pairs of all requests, packed together in the order in which they came.

    A batch is full, or holds all there is: while the oldest pair's request is still being read, a batch
    waits until there is enough to choose from. So a request that is alone is packed the same way each time.
    """

    chunk = 64

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._waiting: deque[Waiting] = deque()
        self._tokens = 0
        self._paused: list[Request] = []
        self._lock = threading.Lock()

    def add(self, request: Request, tokens: TokenizedPairs) -> None:
        """The next pairs of a request."""
        waiting = _waiting(request, tokens, first=len(request.pairs) - request.unread)
        with self._lock:
            request.note_read(tokens)
            self._waiting.extend(waiting)
            self._tokens += sum(document.count for document in waiting)

    def next_batch(self) -> NextBatch | None:
        """The batch of the pair that waits longest, with those others that fill it best."""
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
        """Remove what a batch is chosen from, and on the way whatever nobody waits for any more."""
        candidates: list[Waiting] = []
        tokens, enough = 0, self._budgets.enough
        dropped: dict[Request, bool] = {}  # asking takes a lock, so each request is asked once
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
        """True beyond MOST_WAITING budgets of tokens."""
        with self._lock:
            full = self._tokens > MOST_WAITING * self._budgets.usual
            if full:
                self._paused.append(request)
            return full

    def resume(self) -> Sequence[Request]:
        """All that rest, once there is room again."""
        with self._lock:
            if self._tokens > MOST_WAITING * self._budgets.usual:
                return ()
            paused, self._paused = self._paused, []
            return paused


def _waiting(request: Request, tokens: TokenizedPairs, first: int) -> list[Waiting]:
    return [Waiting(request, first + row, pair) for row, pair in enumerate(tokens.pairs)]
