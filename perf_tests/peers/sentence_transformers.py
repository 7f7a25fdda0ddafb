"""sentence-transformers' own CrossEncoder: as it comes, in FlashAttention, and compiled."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import sentence_transformers
import torch

from perf_tests.peers.peer import MAX_LENGTH, Absent, Pair, longest, predicted

STEP: Final = 16
"""Compiled, sentence-transformers pads to multiples of this."""


class SentenceTransformers:
    """The stock CrossEncoder: sorts by characters, pads to the longest, SDPA attention."""

    def __init__(
        self, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int, **loading: Any
    ) -> None:
        self.model = sentence_transformers.CrossEncoder(
            str(checkpoint), device=device, max_length=longest(checkpoint),
            model_kwargs={"dtype": dtype, **loading},
        )  # fmt: skip
        self.batch_size = batch_size

    def at(self, batch_size: int) -> Self:
        """The same model with another batch size, warmed up for it."""
        other = copy.copy(self)
        other.batch_size = batch_size
        other._warm_up()
        return other

    def _warm_up(self) -> None:
        """Nothing is compiled."""

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        return predicted(self.model, pairs, self.batch_size)


class FlattenedSentenceTransformers(SentenceTransformers):
    """The stock CrossEncoder in FlashAttention: the encoder of a chain of modules runs without padding.

    Raises:
        Absent: it would pad, as models of one module do.
    """

    def __init__(self, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> None:
        super().__init__(checkpoint, device, dtype, batch_size, attn_implementation="flash_attention_2")
        if not getattr(self.model[0], "can_flatten_inputs", False):
            raise Absent("it flattens only chains of modules, in FlashAttention")


class CompiledSentenceTransformers(SentenceTransformers):
    """The stock CrossEncoder, compiled as its documentation says; padded lengths are multiples of STEP."""

    def __init__(self, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> None:
        super().__init__(checkpoint, device, dtype, batch_size)
        self.model.compile(dynamic=True)
        self._warm_up()

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        return self._at_most(MAX_LENGTH, pairs)

    def _warm_up(self) -> None:
        """Every padded length: full batches, one pair (a graph of its own), and as many pairs as tokens.

        The longest is first, since a trace of as many pairs as tokens would make the two sizes one.
        """
        for length in range(MAX_LENGTH, 0, -STEP):
            pair = ("a " * length, "a " * length)
            for rows in sorted({1, self.batch_size, min(self.batch_size, length)}, reverse=True):
                self._at_most(length, [pair] * rows)

    def _at_most(self, length: int, pairs: Sequence[Pair]) -> np.ndarray:
        padding = {"text": {"pad_to_multiple_of": STEP, "max_length": length}}
        return predicted(self.model, pairs, self.batch_size, processing_kwargs=padding)


@contextmanager
def batches_seen(peer: SentenceTransformers) -> Iterator[list[tuple[int, int]]]:
    """The real and all tokens of each batch that runs meanwhile; flattened batches have no padding."""
    seen: list[tuple[int, int]] = []

    def see(_: object, inputs: tuple[Any, ...]) -> None:
        mask = inputs[0].get("attention_mask")
        real, every = (1, 1) if mask is None else (int(mask.sum()), mask.numel())
        seen.append((real, every))

    handle = peer.model[0].register_forward_pre_hook(see)
    try:
        yield seen
    finally:
        handle.remove()
