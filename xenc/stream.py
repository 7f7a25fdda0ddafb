"""Tokenized pairs of all requests -> the next batch. What waits here waits for the device.

`PlannedStream` plans each request by itself, once all its counts are known: padded and bucketed batches.
`PackedStream` packs whatever waits, so that requests share batches and none waits for its own end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from .packing import MAX_CANDIDATES, Budgets, pack
from .plan import BatchPlan, PackedPlan, Plan
from .request import Request
from .tokens import TokenizedPairs

MOST_WAITING: Final = 64
"""Usual budgets' worth of tokens that may wait before reading rests: memory is bounded, not the request."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One tokenized pair, and whose it is: row `row` of `request`."""

    request: Request
    row: int
    ids: list[int]
    types: list[int] | None

    @property
    def count(self) -> int:
        """Tokens it takes; a pair of none is shown one of padding."""
        return max(1, len(self.ids))


@dataclass(frozen=True, slots=True)
class NextBatch:
    """Pairs that run together: documents[i] stands in slot i."""

    documents: Sequence[Waiting]
    plan: BatchPlan | PackedPlan

    @property
    def tokens(self) -> TokenizedPairs:
        """The batch's pairs, in the order of its slots."""
        types = [document.types for document in self.documents]
        return TokenizedPairs(
            input_ids=[document.ids for document in self.documents],
            token_type_ids=None if types[0] is None else [row or [] for row in types],
            truncated_pairs=0,
        )


class Stream(Protocol):
    """Where readers put tokenized pairs and the device's thread takes batches."""

    @property
    def chunk(self) -> int | None:
        """How many pairs to read at a time; None for a whole request."""

    def add(self, request: Request, tokens: TokenizedPairs) -> None:
        """The next pairs of a request, in the caller's order."""

    def take(self) -> NextBatch | None:
        """The next batch, or None if there is none before more is read."""

    def pause(self, request: Request) -> bool:
        """Whether so much waits that reading this request should rest until `resume` names it."""

    def resume(self) -> Sequence[Request]:
        """Requests to read on; call it after `take`."""


class PlannedStream:
    """Whole requests, each planned by itself, first come, first served."""

    chunk = None

    def __init__(self, plan: Callable[[TokenizedPairs, int], Plan]) -> None:
        self._plan = plan
        self._batches: deque[NextBatch] = deque()

    def add(self, request: Request, tokens: TokenizedPairs) -> None:
        """All pairs of a request."""
        request.note_read(tokens)
        waiting = _waiting(request, tokens, first=0)
        plan = self._plan(tokens, request.batch_size)
        request.note_shared(plan.shared_tokens)
        batches = [_in_slots([waiting[row] for row in each.rows], each) for each in plan.batches]
        self._batches.extend(batches)  # all at once: they may share a prefix, which is read once

    def take(self) -> NextBatch | None:
        """The next batch of the oldest request that somebody still waits for."""
        while self._batches:
            batch = self._batches.popleft()
            if not batch.documents[0].request.dropped:
                return batch
        return None

    def pause(self, request: Request) -> bool:  # noqa: ARG002
        """Never: a request is planned as a whole."""
        return False

    def resume(self) -> Sequence[Request]:
        """None."""
        return ()


class PackedStream:
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

    def take(self) -> NextBatch | None:
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
        return _in_slots([candidates[row] for row in plan.rows], plan)

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


def _in_slots(documents: list[Waiting], plan: BatchPlan | PackedPlan) -> NextBatch:
    """These documents' plan, its rows renumbered by the slots they stand in."""
    return NextBatch(documents, replace(plan, rows=tuple(range(len(documents)))))


def _waiting(request: Request, tokens: TokenizedPairs, first: int) -> list[Waiting]:
    types = tokens.token_type_ids
    return [
        Waiting(request, first + row, ids, None if types is None else types[row])
        for row, ids in enumerate(tokens.input_ids)
    ]
