"""Rows on the same pairs, in turns: A B C, B C A, ... A machine that slows down slows all of them.

Where the models do not fit the memory together, each row has all its rounds before the next one is loaded.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from .contestant import Contestant, Load, Pair, Timed, made_ready
from .rows import Row

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Rounds:
    """How often each row is timed: `count` times, or until `seconds` have passed."""

    count: int = 5
    seconds: float | None = None

    def more(self, done: int, spent: float, share: float = 1.0) -> bool:
        """Whether another round begins after so many, in which so many seconds went by."""
        if self.seconds is None:
            return done < self.count
        return done == 0 or spent < self.seconds * share


@dataclass(kw_only=True)
class SideBySide:
    """All that was measured.

    Attributes:
        rows: in the order of the table.
        in_turns: whether the rows took turns; else each had its rounds before the next was loaded.
    """

    rows: list[Timed] = field(default_factory=list)
    in_turns: bool = True


def time_rows(
    rows: Sequence[Row], load: Load, pairs: Sequence[Pair], exact: np.ndarray | None, rounds: Rounds, *,
    in_turns: bool = True, tell: Tell = lambda _: None,
) -> SideBySide:  # fmt: skip
    """Make rows ready and time them on pairs. A row that fails is noted, and the others go on.

    Args:
        rows: what to time.
        load: makes the model of a row.
        pairs: scored in each round.
        exact: their logits by sentence-transformers in float32, or None if that does not score them.
        rounds: how often.
        in_turns: whether all models are in memory at once.
        tell: told in a line what happens.
    """
    found = SideBySide(rows=[Timed(row=row) for row in rows], in_turns=in_turns)
    groups = [found.rows] if in_turns else [[timed] for timed in found.rows]
    for group in groups:
        ready = []
        for timed in group:
            tell(f"{timed.row}: loading, warming up, comparing")
            contestant = made_ready(load, timed, pairs, exact)
            if contestant is None:
                tell(f"{timed.row}: {timed.problem}")
            else:
                ready.append(contestant)
        try:
            _take_turns(ready, pairs, rounds, 1 / len(groups), tell)
        finally:
            for contestant in ready:
                contestant.close()
        del ready, contestant
        _forget()
    return found


def _take_turns(
    ready: Sequence[Contestant], pairs: Sequence[Pair], rounds: Rounds, share: float, tell: Tell
) -> None:
    began, done = time.monotonic(), 0
    while rounds.more(done, time.monotonic() - began, share):
        running = [each for each in ready if each.timed.problem is None]
        if not running:
            return
        first = done % len(running)
        for contestant in (*running[first:], *running[:first]):
            with nothing_collected():
                contestant.time(pairs)
        done += 1
        tell(f"round {done} of {len(running)} row(s), {time.monotonic() - began:.0f} s")


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Python's garbage is collected before the block and not in it."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
