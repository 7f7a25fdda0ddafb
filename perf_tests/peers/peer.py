"""What a peer is: another system that scores pairs of texts with the same checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from transformers import AutoTokenizer

Pair = tuple[str, str]

MAX_LENGTH: Final = 512


class Peer(Protocol):
    """A system ready to be timed."""

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        ...


Factory = Callable[[Path, str, torch.dtype, int], Peer]
"""(checkpoint, device, dtype, batch_size) -> the peer."""


def longest(checkpoint: Path) -> int:
    """Tokens to truncate at: as many as the model seats, and no more than MAX_LENGTH."""
    return min(MAX_LENGTH, int(AutoTokenizer.from_pretrained(checkpoint).model_max_length))


class Absent(Exception):
    """A peer cannot run here, for want of a package or of instructions; the message says of which."""
