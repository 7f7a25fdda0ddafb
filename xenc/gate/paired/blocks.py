"""Arms and inputs -> blocks, interleaved. What stands on both sides of a comparison runs in one process.

Each input is one palindrome: every arm runs it on the way there and again on the way back, A B C C B A, so
that what drifts meanwhile falls on all arms alike. The arm that begins takes turns.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from ..measure import synchronised_seconds

Input = TypeVar("Input")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One timed run of one arm on one input.

    Attributes:
        arm: who ran.
        palindrome: the number of the input.
        wall_s: seconds from texts to scores.
        device_s: seconds thereof in forward passes.
        throttled: whether the device slowed itself down meanwhile.
    """

    arm: str
    palindrome: int
    wall_s: float
    device_s: float
    throttled: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values, seconds to five digits."""
        rounded = {"wall_s": float(f"{self.wall_s:.5g}"), "device_s": float(f"{self.device_s:.5g}")}
        return {**asdict(self), **rounded}


def order(arms: Sequence[str], palindrome: int) -> list[str]:
    """The arms there and back, beginning with another one each time."""
    first = palindrome % len(arms)
    there = [*arms[first:], *arms[:first]]
    return [*there, *reversed(there)]


def run_blocks(
    arms: Mapping[str, Callable[[Input], float]],
    inputs: Sequence[Input],
    *,
    throttled: Callable[[], bool] = lambda: False,
    around: Callable[[str, int], AbstractContextManager[Any]] = lambda *_: nullcontext(),
) -> list[Block]:
    """Time every arm on every input, twice.

    Args:
        arms: what runs an input and returns the seconds it was in forward passes; warmed up.
        inputs: one per palindrome.
        throttled: asked after each block whether the device was slowed down during it.
        around: given the arm and the palindrome, a context manager around the timed region.

    Returns:
        The blocks in the order they ran, 2 x arms x inputs.
    """
    gc.collect()
    gc.freeze()  # else a full collection, which walks all that was ever imported, hits some block
    try:
        return [
            _time(arm, arms[arm], number, value, throttled, around)
            for number, value in enumerate(inputs)
            for arm in order(tuple(arms), number)
        ]
    finally:
        gc.unfreeze()


def _time(
    arm: str,
    run: Callable[[Input], float],
    palindrome: int,
    value: Input,
    throttled: Callable[[], bool],
    around: Callable[[str, int], AbstractContextManager[Any]],
) -> Block:
    with around(arm, palindrome):
        started = synchronised_seconds()
        device_s = run(value)
        wall_s = synchronised_seconds() - started
        slow = throttled()
    return Block(arm=arm, palindrome=palindrome, wall_s=wall_s, device_s=device_s, throttled=slow)
