"""What a forked child finds as it was at the start: locks free, queues empty.

A child has only the thread that forked. What the other threads held at that moment would stay held for ever.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar
from weakref import WeakSet

Thing = TypeVar("Thing")

_ALL: WeakSet[Any] = WeakSet()


def renewed_in_a_child(thing: Thing) -> Thing:
    """The thing itself, whose `_at_fork_reinit()` a forked child will call; Python's locks have it."""
    _ALL.add(thing)
    return thing


def _renew() -> None:
    for thing in tuple(_ALL):
        thing._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
