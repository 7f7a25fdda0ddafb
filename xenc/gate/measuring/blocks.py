"""Arms and inputs -> timed blocks, interleaved within one process.

An arm is one of the things compared (base, head, a control). Every arm runs each input twice, in the order of
a palindrome: A B B A for two arms, A B C C B A for three. Drift that is linear in time then affects all arms
equally. Which arm comes first rotates.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from .rounds import synchronised_seconds

Input = TypeVar("Input")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One timed run of one arm on one input.

    Attributes:
        arm: the name of the arm.
        palindrome: the number of the input, and so of the palindrome.
        wall_s: wall-clock seconds from texts to scores.
        device_s: seconds of these in forward passes.
        throttled: whether the device was throttling at the end of the block.
    """

    arm: str
    palindrome: int
    wall_s: float
    device_s: float
    throttled: bool

    def as_json(self) -> dict[str, Any]:
        """The attributes by name; seconds with five significant digits."""
        rounded = {"wall_s": float(f"{self.wall_s:.5g}"), "device_s": float(f"{self.device_s:.5g}")}
        return {**asdict(self), **rounded}


def order(arms: Sequence[str], palindrome: int) -> list[str]:
    """The order of the arms in a palindrome; the first arm rotates with its number."""
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
        arms: functions by name that run an input and return its seconds in forward passes; warmed up.
        inputs: one per palindrome.
        throttled: called after each block: whether the device is throttling.
        around: makes a context manager around a block, outside its timing, from the arm and the palindrome.

    Returns:
        2 x arms x inputs blocks in the order they ran.
    """
    gc.collect()
    gc.freeze()  # otherwise a full collection, which visits every imported object, may fall into a block
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
