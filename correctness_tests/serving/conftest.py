"""A model that answers NaN for one word, and ways to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import xenc
from correctness_tests import oracle
from correctness_tests.waiting import SOON

FINE = ("a question", "a document")
POISON = ("q", "")
"""A pair whose logit is NaN."""


@contextmanager
def poisoned(checkpoint: Path) -> Iterator[xenc.CrossEncoder]:
    with xenc.CrossEncoder(str(checkpoint), device="cpu", execution="packed-eager") as model:
        token = model.tokenizer.convert_tokens_to_ids(POISON[0])
        with torch.no_grad():
            model.transformers_model.get_input_embeddings().weight[token] = float("nan")
        yield model


@pytest.fixture
def model(tiny: Path) -> Iterator[xenc.CrossEncoder]:
    with poisoned(tiny) as model:
        yield model


@pytest.fixture(scope="session")
def expected(tiny: Path) -> float:
    """The oracle's logit of FINE."""
    return float(oracle.logits(tiny, [FINE], max_length=64)[0])


def submit(model: xenc.CrossEncoder, pairs, activation_fn=None) -> Future:
    """Ask for logits."""
    return model.submit(pairs, activation_fn=activation_fn or torch.nn.Identity())


def refuse(_):
    raise LookupError("this activation only")


def assert_right(future: Future, expected: float | list[float]) -> None:
    np.testing.assert_allclose(future.result(SOON), expected, rtol=0, atol=1e-4)
