"""What one would use instead of xenc: the same checkpoint and the same truncation in other systems.

Each peer is configured as its documentation advises for texts of many lengths. What it has to prepare once,
compiling or exporting, is done when it is made, so that nothing of it is left for the timed region.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from perf_tests.peers.peer import MAX_LENGTH, Absent, Pair, Peer
from perf_tests.peers.sentence_transformers import CompiledSentenceTransformers, SentenceTransformers

__all__ = [
    "FACTORIES",
    "MAX_LENGTH",
    "Absent",
    "CompiledSentenceTransformers",
    "Pair",
    "Peer",
    "SentenceTransformers",
    "make",
]

FACTORIES: Final[dict[str, type[SentenceTransformers]]] = {
    "sentence-transformers": SentenceTransformers,
    "sentence-transformers-compiled": CompiledSentenceTransformers,
}
"""Those that run on any device, by name."""


def make(name: str, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> Peer:
    """A peer that runs on any device, warmed up."""
    return FACTORIES[name](checkpoint, device, dtype, batch_size)
