"""A model whose score of a pair is a digest of its texts, so that a score that was lost or moved shows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from xenc import PairError
from xenc.files.chunk import Pair

POISON = "cannot be scored"


def score_of(pair: Pair) -> float:
    digest = hashlib.sha256("\0".join(pair).encode()).digest()
    return int.from_bytes(digest[:3], "little") / 2**24  # exact in float32


class FakeModel:
    num_labels = 1

    def __enter__(self) -> FakeModel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def warmup(self, **_: object) -> None:
        pass

    def submit(self, inputs: Sequence[Pair]) -> Future[Any]:
        future: Future[Any] = Future()
        if any(POISON in pair for pair in inputs):
            future.set_exception(PairError("pair 0: is poison"))
        else:
            future.set_result(np.array([score_of(pair) for pair in inputs], np.float32))
        return future
