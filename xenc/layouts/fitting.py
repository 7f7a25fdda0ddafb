"""What becomes of batches that do not fit the device's memory: smaller ones, a warning, or an error."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch

from ..compiling.memory import free_memory
from ..errors import OutOfMemoryError
from .base import Layout

logger = logging.getLogger(__name__)

_REMEDY: Final = (
    "Lower max_length, load the model in a smaller dtype (model_kwargs={'dtype': torch.bfloat16}), or free "
    "memory; with explicit token_budgets or deterministic=True, give a smaller size in token_budgets."
)


class Fitting:
    """Makes a layout plan smaller batches, and says so once one has run. For the device's thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._unsaid: list[str] = []

    def halve(
        self, layout: Layout, shape: tuple[int, int], asked: str, *, pairs: int | None = None, batch: Any
    ) -> bool:
        """A batch did not fit; False if the layout has none that is smaller.

        Args:
            layout: what planned it.
            shape: its shape.
            asked: what could not be allocated.
            pairs: how many it held; None for a dummy.
            batch: the batch, or its plan, which may have a prefix.
        """
        free_memory(self._device)
        unfit = layout.halve(shape, pairs=pairs, prefix=getattr(batch, "prefix", None))
        if unfit is None:
            return False
        self._unsaid.append(f"{unfit} ({asked})")
        return True

    def say(self, layout: Layout, shape: tuple[int, int], graphs: int = 0) -> None:
        """A batch of this shape did fit: warn of those that did not, and of graphs compiled for it."""
        unsaid, self._unsaid = self._unsaid, []
        if unsaid:
            logger.warning(
                "%s did not fit the memory, %s did: %s (said once for each size%s)",
                " and ".join(unsaid), layout.described(shape), layout.limited(shape),
                f"; graphs compiled meanwhile: {graphs}" if graphs else "",
            )  # fmt: skip


def pair_does_not_fit(tokens: int, asked: str, batch: str) -> OutOfMemoryError:
    """The error of a pair, where a batch, in words, is the smallest that holds it."""
    return OutOfMemoryError(
        f"a pair of {tokens} tokens does not fit the memory: {asked} for {batch}, and no smaller one holds "
        f"it. {_REMEDY}"
    )


def nothing_fits(asked: str, batch: str) -> OutOfMemoryError:
    """The error of a warm-up in which not even this batch, in words, could run."""
    return OutOfMemoryError(f"no batch fits the memory, not even {batch} ({asked}). {_REMEDY}")
