"""Work to add on purpose: a known share of a block's time, in matrix products."""

from __future__ import annotations

import statistics
from typing import Final

import torch

from .rounds import synchronised_seconds

SIDES: Final = {"cpu": 96, "cuda": 2048}
"""Sides of the square matrices; a product takes some ten microseconds on a CPU."""

DTYPES: Final = {"cpu": torch.float32, "cuda": torch.bfloat16}


class ExtraWork:
    """A job that takes a share of a block's own device time.

    Args:
        device: torch's device type.
        share: of `block_s`, 0.05 for five percent.
        block_s: device seconds of an unchanged block.
    """

    def __init__(self, device: str, *, share: float, block_s: float) -> None:
        side = SIDES[device]
        self._matrix = torch.randn(side, side, device=device).to(DTYPES[device])
        self.products = max(1, round(share * block_s / self._seconds_of_one()))

    def __call__(self) -> None:
        """Do it, or launch it on a GPU."""
        self._run(self.products)

    def _run(self, products: int) -> None:
        with torch.inference_mode():
            for _ in range(products):
                torch.mm(self._matrix, self._matrix)

    def _seconds_of_one(self) -> float:
        def timed(products: int) -> float:
            started = synchronised_seconds()
            self._run(products)
            return (synchronised_seconds() - started) / products

        timed(20)
        return statistics.median(timed(50) for _ in range(9))
