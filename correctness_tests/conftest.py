"""Models of the laws, each made and compiled once per session. Tests that change a model make their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType

import pytest
import sentence_transformers
import torch
from transformers import AutoTokenizer, CanineTokenizer, PreTrainedTokenizerBase

import xenc
from correctness_tests import checkpoints, small_functions
from perf_tests import models, msmarco
from xenc.gate import exact

BATCH_SIZE = 4


@pytest.fixture(scope="session")
def tiny() -> Path:
    return models.tiny_bert()


@pytest.fixture
def suites_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate also knows the facts that only the performance suite has."""
    from perf_tests import scored

    monkeypatch.setattr(exact, "FACTS", {**exact.FACTS, **scored.FACTS})


@pytest.fixture(scope="session")
def minilm() -> Path:
    return models.minilm()


@pytest.fixture(scope="session")
def trained() -> Path:
    """Weights that rank as people would; they are fetched once."""
    if (reason := msmarco.missing()) is not None:
        pytest.skip(reason)
    return msmarco.msmarco_minilm()


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What compiles fastest."""
    return checkpoints.make(tmp_path_factory.mktemp("one-layer"), "bert")


@pytest.fixture(scope="session")
def three_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make(tmp_path_factory.mktemp("three-labels"), "bert", num_labels=3)


@pytest.fixture(scope="session")
def tiny_xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XLM-RoBERTa's table of 514 positions, which seats 512 tokens."""
    return checkpoints.make(tmp_path_factory.mktemp("tiny-xlmr"), "xlm-roberta", max_position_embeddings=514)


@pytest.fixture(scope="module", params=["trained-wordpiece", "bert-wordpiece", "unigram", "python"])
def tokenizer(
    request: pytest.FixtureRequest, tiny: Path, minilm: Path, tiny_xlmr: Path
) -> PreTrainedTokenizerBase:
    """Of every kind: two Rust models, one of them with a pretrained vocabulary too, and one of Python."""
    if request.param == "python":
        return CanineTokenizer(model_max_length=64)
    paths = {"trained-wordpiece": tiny, "bert-wordpiece": minilm, "unigram": tiny_xlmr}
    return AutoTokenizer.from_pretrained(paths[request.param])


@pytest.fixture(scope="session", params=["bucketed", "packed"])
def warm(tiny: Path, request: pytest.FixtureRequest) -> xenc.CrossEncoder:
    """Compiled, in each layout that compiles, and warmed up for BATCH_SIZE."""
    model = xenc.CrossEncoder(str(tiny), device="cpu", execution=request.param)
    model.warmup(BATCH_SIZE, passes=1)
    return model


@pytest.fixture(scope="session")
def eager(tiny: Path) -> xenc.CrossEncoder:
    return xenc.CrossEncoder(str(tiny), device="cpu", execution="sdpa-sorted")


@pytest.fixture(scope="session")
def plain(tiny: Path) -> sentence_transformers.CrossEncoder:
    return sentence_transformers.CrossEncoder(str(tiny), device="cpu")


@pytest.fixture
def fresh() -> Iterator[Callable[..., FunctionType]]:
    """Makes copies of functions, each compiled on its own and forgotten after the test."""
    yield from small_functions.copies()


@pytest.fixture
def dynamo_alone(monkeypatch):
    """Dynamo's graphs run as they are, since generating code for each would take a minute."""
    compile_ = torch.compile

    def with_eager_backend(function, *, mode, **others):
        return compile_(function, backend="eager", **others)

    monkeypatch.setattr(torch, "compile", with_eager_backend)
