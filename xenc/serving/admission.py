"""How many pairs have been accepted and not been answered yet, and how many may be.

A queue without a bound turns overload into latency: whoever waits in it has given up before the answer comes.
A bound turns it into an error at once, while there is time to ask elsewhere.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from ..errors import ExecutionError, Overloaded


class Ticket:
    """Pairs that were accepted. They count until `leave` is called, once or more often."""

    def __init__(self, pairs: int, leave: Callable[[Ticket], None]) -> None:
        self.pairs, self._leave = pairs, leave

    def leave(self, _: object = None) -> None:
        """The pairs count no more. Call it just before the answer is handed over: who has it may ask anew."""
        self._leave(self)


class Admission:
    """The counter of one model, exact under any number of threads.

    It belongs to the model and not to its pipeline, which may be replaced while requests are on their way.
    Copies and forked children begin at zero: nobody there waits for what was accepted here.

    Args:
        limit: the most pairs that may wait; None for any number.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._begin()
        _ALL.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._tickets: set[Ticket] = set()
        self._waiting = 0

    @property
    def limit(self) -> int | None:
        """The most pairs that may wait. A lower one drops nothing that was accepted.

        Raises:
            ExecutionError: set to what is neither a positive number nor None.
        """
        return self._limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit <= 0):
            raise ExecutionError(
                f"max_waiting_pairs={limit!r} must be a positive number of pairs, or None for any number."
            )
        self._limit = limit

    @property
    def waiting(self) -> int:
        """Pairs accepted and not answered yet."""
        return self._waiting

    @contextmanager
    def accept(self, pairs: int) -> Iterator[Ticket]:
        """Accept so many pairs; they leave at once if the block raises.

        Raises:
            Overloaded: more than `limit` would wait. Nothing was accepted.
        """
        ticket = self._admit(pairs)
        try:
            yield ticket
        except BaseException:
            ticket.leave()
            raise

    @contextmanager
    def accept_meanwhile(self, pairs: int) -> Iterator[None]:
        """Accept so many pairs, which are answered when the block ends; see `accept` for the error."""
        with self.accept(pairs) as ticket:
            yield
            ticket.leave()

    def _admit(self, pairs: int) -> Ticket:
        ticket = Ticket(pairs, self._leave)
        with self._lock:
            waiting, limit = self._waiting, self._limit
            if limit is not None and pairs and waiting + pairs > limit:
                raise _overloaded(pairs, waiting, limit)
            self._tickets.add(ticket)
            self._waiting += pairs
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._waiting -= ticket.pairs

    def __reduce__(self) -> tuple[Any, ...]:
        return Admission, (self._limit,)


def _overloaded(pairs: int, waiting: int, limit: int) -> Overloaded:
    if pairs > limit:
        message = (
            f"a request of {pairs} pairs can never be accepted with max_waiting_pairs={limit}: split it, or "
            "raise max_waiting_pairs."
        )
    else:
        message = (
            f"{waiting} pairs wait already, and {pairs} more would exceed max_waiting_pairs={limit}: "
            "retry later, raise max_waiting_pairs, or add a machine."
        )
    return Overloaded(message, pairs=pairs, waiting=waiting, limit=limit)


_ALL: WeakSet[Admission] = WeakSet()


def _begin_in_child() -> None:
    """The parent's other threads are gone, and with them whoever held a lock or was to answer."""
    for admission in _ALL:
        admission._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
