"""A question, passages to rank for it, and what says who built a model and who scored."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import sentence_transformers

import xenc
from correctness_tests.everyday import QUESTIONS

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

QUESTION = QUESTIONS[0].question
PASSAGES = [answered.passage for answered in QUESTIONS]
EAGER = {"execution": "packed-eager"}
"""Nothing here is about compiling."""

OWN_INIT = vars(sentence_transformers.CrossEncoder)["__init__"]


def is_undone() -> bool:
    """Whether sentence-transformers' class is what it was before any test."""
    return vars(sentence_transformers.CrossEncoder)["__init__"] is OWN_INIT


def pairs_scored(model: xenc.CrossEncoder) -> int:
    """How many pairs xenc's own batches scored in the last call."""
    assert type(model) is xenc.CrossEncoder
    return 0 if model.last_report is None else model.last_report.pairs


@pytest.fixture(autouse=True)
def undone_afterwards() -> Iterator[None]:
    yield
    assert is_undone()
