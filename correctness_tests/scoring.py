"""Score pairs on the processor, hold the scores to the oracle, and watch that nothing compiles meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import sentence_transformers
import torch

import xenc
from correctness_tests import oracle

TOLERANCE = 1e-4
"""On float32 logits of unit spread."""


def on_cpu(
    checkpoint: Path | str, execution: xenc.Execution | str = "sdpa-sorted", **options: object
) -> xenc.CrossEncoder:
    return xenc.CrossEncoder(str(checkpoint), device="cpu", execution=execution, **options)


def logits(model: xenc.CrossEncoder, pairs: Sequence[tuple[str, str]], **options: object) -> np.ndarray:
    return model.predict(pairs, activation_fn=torch.nn.Identity(), **options)


def alone(model: xenc.CrossEncoder, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Each pair's logits by sentence-transformers itself, with the model's modules as they are now."""
    plain = sentence_transformers.CrossEncoder(modules=list(model), device="cpu")
    return np.array([logits(plain, [pair])[0] for pair in pairs])


def assert_close(scores: np.ndarray, expected: np.ndarray | float, atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(scores, expected, rtol=0, atol=atol)


def assert_oracles(
    scores: np.ndarray, checkpoint: Path, pairs: Sequence[tuple[str, str]], max_length: int = 64
) -> None:
    assert_close(scores, oracle.logits(checkpoint, pairs, max_length=max_length))


@contextmanager
def nothing_compiles() -> Iterator[None]:
    with xenc.watch_compiles() as watch:
        yield
    assert watch.report.clean, watch.report.describe()
