"""Bounds how many pairs wait: requests beyond the bound are refused at once instead of answered late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import ExecutionError, Overloaded
from ..forks import renewed_in_a_child


class Admission:
    """Counts the pairs of one model that were accepted and not answered yet. Thread-safe.

    It belongs to the model rather than to the pipeline, which may be replaced while requests wait. Copies
    and forked children start at zero.

    Args:
        limit: the most pairs that may wait; None for any number.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._at_fork_reinit()
        renewed_in_a_child(self)

    def _at_fork_reinit(self) -> None:
        self._lock = threading.Lock()
        self._accepted: dict[object, int] = {}
        self._waiting = 0

    @property
    def limit(self) -> int | None:
        """The most pairs that may wait. Lowering it drops nothing that was accepted.

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
    def accept(self, pairs: int) -> Iterator[Callable[..., None]]:
        """Count pairs as waiting until the function it yields is called, or the block raises.

        The function ignores its arguments, and all its calls but the first. Call it just before the answer is
        set, so that the caller is not refused because of its own last request.

        Raises:
            Overloaded: more than `limit` would wait. Nothing was accepted.
        """
        request = object()
        with self._lock:
            waiting, limit = self._waiting, self._limit
            if limit is not None and pairs and waiting + pairs > limit:
                raise _overloaded(pairs, waiting, limit)
            self._accepted[request] = pairs
            self._waiting += pairs

        def leave(*_: object) -> None:
            with self._lock:
                self._waiting -= self._accepted.pop(request, 0)

        try:
            yield leave
        except BaseException:
            leave()
            raise

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
