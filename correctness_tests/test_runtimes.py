"""What runs the forward pass: PyTorch or TensorRT, what contradicts it, and the runtimes that left."""

from __future__ import annotations

import re

import pytest

import xenc
from correctness_tests import checkpoints, test_causal
from xenc import PRESETS, Execution, ExecutionError
from xenc.extras import missing_for


def made(checkpoint, execution: Execution | str) -> xenc.CrossEncoder:
    return xenc.CrossEncoder(str(checkpoint), device="cpu", execution=execution)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_runtime_that_left_is_refused_with_what_to_use_instead(one_layer, name):
    remedy = r".*execution='packed', is faster on a CPU\.$"
    for settings in ({}, {"layout": "padded", "compile_mode": None}):
        with pytest.raises(ExecutionError, match=rf"^runtime='{name}': {remedy}"):
            Execution(runtime=name, **settings)
    with pytest.raises(ExecutionError, match=rf"^execution='{name}': {remedy}"):
        made(one_layer, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtime": "onnx"}, r"runtime='onnx' is not one of 'torch', 'tensorrt'\.$"),
        ({"runtime": "tensorrt"}, r"runtime='tensorrt' with layout='packed'.*runtime='torch'"),
        (
            {"runtime": "tensorrt", "layout": "bucketed", "quantize": "int8"},
            r"runtime='tensorrt' with quantize='int8'",
        ),
        (
            {"runtime": "tensorrt", "layout": "bucketed", "compile_mode": "max-autotune"},
            r"runtime='tensorrt' with compile_mode='max-autotune'.*compile_mode='default'",
        ),
        (
            {"runtime": "tensorrt", "layout": "bucketed", "compile_mode": None},
            r"runtime='tensorrt' with compile_mode=None",
        ),
        (
            {"runtime": "tensorrt", "layout": "bucketed", "freeze": True},
            r"runtime='tensorrt' with freeze=True",
        ),
    ],
)
def test_contradictions_name_both_choices_and_the_remedy(settings, message):
    with pytest.raises(ExecutionError, match=message):
        Execution(**settings)


def test_a_causal_reranker_is_refused(tmp_path):
    with pytest.raises(ExecutionError, match="runtime='tensorrt': a causal reranker runs packed"):
        made(test_causal.make(tmp_path), PRESETS["tensorrt"])


def test_a_classifier_that_looks_up_eos_as_it_runs_is_refused(tmp_path):
    checkpoint = checkpoints.make(tmp_path, "mbart", **checkpoints.BART)
    with pytest.raises(ExecutionError, match=r"tensorrt.*MBart\S+ looks up <eos>.*runtime='torch'"):
        made(checkpoint, PRESETS["tensorrt"])


def test_an_absent_package_is_an_error_with_the_hint_as_soon_as_it_is_chosen(one_layer, monkeypatch):
    monkeypatch.setattr("xenc.extras.find_spec", lambda module: None)
    hint = "pip install 'xenc[tensorrt]'"
    with pytest.raises(xenc.NotInstalledError, match=rf"runtime='tensorrt' needs .*{re.escape(hint)}"):
        made(one_layer, PRESETS["tensorrt"])
    model = made(one_layer, PRESETS["sdpa-sorted"])
    with pytest.raises(xenc.NotInstalledError, match=re.escape(hint)):
        model.execution = "tensorrt"
    assert model.execution == PRESETS["sdpa-sorted"]
    assert missing_for(PRESETS["tensorrt"]) == f"not installed: {hint}"
