"""Other systems with the same checkpoint and the same truncation.

Each peer is configured as its documentation advises for texts of many lengths, and compiles or exports when
it is made, outside the timed region.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import torch

from perf_tests.peers.peer import MAX_LENGTH, Absent, Peer
from perf_tests.peers.sentence_transformers import CompiledSentenceTransformers, SentenceTransformers

__all__ = ["FACTORIES", "MAX_LENGTH", "Absent", "Peer", "SentenceTransformers", "make"]

FACTORIES: Final = {
    "sentence-transformers": SentenceTransformers,
    "sentence-transformers-compiled": CompiledSentenceTransformers,
}
"""Those that run on any device, by name."""


@cache
def make(name: str, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> Peer:
    """A peer that runs on any device, warmed up; made once."""
    return FACTORIES[name](checkpoint, device, dtype, batch_size)
