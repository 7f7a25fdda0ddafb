"""Padded batches for runtimes that take arrays: tokenized in one call, sorted, padded to the longest.

Shapes: N = pairs, B = pairs of a batch, L = tokens of its longest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from transformers import AutoTokenizer

from perf_tests.peers.peer import Pair, longest

Arrays = Mapping[str, np.ndarray]
"""int64 [B, L] by the names of the model's inputs."""

Session = Callable[[Arrays], np.ndarray]
"""A batch -> its logits, float32 [B, 1]."""


class Padded:
    """Texts to logits: a checkpoint's tokenizer, padded batches of batch_size pairs, a session."""

    def __init__(self, checkpoint: Path, session: Session, batch_size: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._max_length = longest(checkpoint)
        self._session, self.batch_size = session, batch_size

    def at(self, batch_size: int) -> Self:
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        logits = np.empty(len(pairs), dtype=np.float32)
        for rows, arrays in self.batches(pairs):
            logits[rows] = self._session(arrays)[:, 0]
        return logits

    def batches(self, pairs: Sequence[Pair]) -> Iterator[tuple[list[int], Arrays]]:
        """Which pairs, longest first, and their arrays."""
        encoded = self._tokenizer(
            [query for query, _ in pairs], [document for _, document in pairs],
            truncation=True, max_length=self._max_length,
        )  # fmt: skip
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order = sorted(range(len(pairs)), key=lambda row: -lengths[row])
        fill = {"input_ids": self._tokenizer.pad_token_id}
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            shape = len(rows), lengths[rows[0]]
            arrays = {name: np.full(shape, fill.get(name, 0), dtype=np.int64) for name in encoded}
            for name, array in arrays.items():
                for line, row in enumerate(rows):
                    array[line, : lengths[row]] = encoded[name][row]
            yield rows, arrays
