"""A peer: another system that scores pairs of texts with the same checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

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


def longest(checkpoint: Path) -> int:
    """Tokens to truncate at: as many as the model seats, and no more than MAX_LENGTH."""
    return min(MAX_LENGTH, int(AutoTokenizer.from_pretrained(checkpoint).model_max_length))


def predicted(model: Any, pairs: Sequence[Pair], batch_size: int, **options: Any) -> np.ndarray:
    """Logits by `predict` as sentence-transformers' models and xenc's have it: [N], in the caller's order."""
    scores: np.ndarray = model.predict(
        pairs, batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False, **options
    )
    return scores


class Absent(Exception):
    """A peer cannot run here, for want of a package or of instructions; the message says which."""


def require(*packages: str) -> None:
    """Raise Absent, naming the packages that are not installed, if any."""
    absent = [name for name in packages if find_spec(name) is None]
    if absent:
        raise Absent(f"not installed: {', '.join(absent)}")
