"""TensorRT up to its backend: a stand-in for the package registers one that runs the graph as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch._dynamo.backends import registry

import xenc
from correctness_tests import oracle
from xenc import PRESETS, CompileError, ExecutionError, watch_compiles
from xenc.runtimes import tensorrt

PAIRS = [("where is it", "here it is " * words) for words in range(8)]
BATCH_SIZE = 4
NAME = "torch_tensorrt"

STAND_IN = f"""
import torch

built = []

@torch._dynamo.register_backend(name="{NAME}")
def backend(graph, inputs, *, options):
    built.append(options)
    if not options["pass_through_build_failures"] or len(built) > limit:
        raise RuntimeError("no engine can be built")
    return graph.forward

limit = 100
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of that name, which can run on the CPU."""
    (tmp_path / f"{NAME}.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tensorrt, "DEVICES", ["cpu"])
    yield
    sys.modules.pop(NAME, None)
    registry._BACKENDS.pop(NAME, None)
    registry._COMPILER_FNS.pop(NAME, None)


@pytest.fixture
def model(one_layer, package) -> Iterator[xenc.CrossEncoder]:
    execution = replace(PRESETS["tensorrt"], strict=True)
    with xenc.CrossEncoder(str(one_layer), device="cpu", execution=execution) as model:
        yield model


def stand_in() -> ModuleType:
    return sys.modules[NAME]


def logits(model: xenc.CrossEncoder) -> np.ndarray:
    return model.predict(PAIRS, batch_size=BATCH_SIZE, activation_fn=torch.nn.Identity())


def test_it_builds_an_engine_for_each_bucket_and_none_after_warm_up(model, one_layer):
    report = model.warmup(BATCH_SIZE)
    assert report.shapes == ((BATCH_SIZE, 64), (BATCH_SIZE, 32), (BATCH_SIZE, 16))
    assert len(stand_in().built) == report.graphs == 3
    with watch_compiles() as watch:
        scores = logits(model)
    assert watch.report.clean, watch.report.describe()
    np.testing.assert_allclose(scores, oracle.logits(one_layer, PAIRS, max_length=64), rtol=0, atol=1e-4)


def test_the_package_is_imported_only_when_it_is_chosen(one_layer, package):
    model = xenc.CrossEncoder(str(one_layer), device="cpu", execution="sdpa-sorted")
    logits(model)
    assert NAME not in sys.modules


def test_a_changed_weight_builds_anew_since_an_engine_holds_weights(model):
    model.warmup(BATCH_SIZE)
    with torch.no_grad():
        model.transformers_model.classifier.weight.mul_(2)
    with pytest.raises(CompileError, match="a weight changed"):
        logits(model)


def test_what_cannot_be_built_is_an_error_and_not_run_otherwise(model):
    model.warmup(BATCH_SIZE)
    stand_in().limit = 3
    with pytest.raises(Exception, match="no engine can be built"):
        model.predict(PAIRS, batch_size=3)


def test_a_model_on_a_processor_is_refused(one_layer, package, monkeypatch):
    monkeypatch.setattr(tensorrt, "DEVICES", ["cuda"])
    with pytest.raises(ExecutionError, match=r"runtime='tensorrt' with a model on cpu: .*cuda only"):
        xenc.CrossEncoder(str(one_layer), device="cpu", execution="tensorrt")
