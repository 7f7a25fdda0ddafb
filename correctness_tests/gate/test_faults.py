"""The faults that show the gate red: each does to a model what it says."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import xenc
from correctness_tests.gate.test_kernels import profiled_batches
from correctness_tests.small_functions import double, static
from perf_tests.faults import inject
from xenc import CrossEncoder, watch_compiles
from xenc.compiling.watch import cached_graphs
from xenc.gate.growth import grown_calls

PAIRS = [("a", "b " * words) for words in (1, 60, 5, 40, 20, 60, 2, 9)]


@pytest.fixture(params=["sdpa-sorted", "packed-eager"])
def model(tiny, request):
    with CrossEncoder(str(tiny), device="cpu", execution=request.param) as model:
        sound = model.pipeline.forward
        yield model
        model.pipeline.forward = sound


@pytest.mark.parametrize("fraction", [0.3, 1.0, 2.5])
def test_slow_is_so_much_more_device_work_for_the_same_scores(model, fraction):
    expected = model.predict(PAIRS, batch_size=2)
    tokens, forward = [], model.pipeline.forward

    def counted(batch):
        tokens.append(batch.input_ids.numel())
        return forward(batch)

    model.pipeline.forward = counted
    model.predict(PAIRS, batch_size=2)
    sound = sum(tokens)
    tokens.clear()
    inject(f"slow:{fraction}", model)
    for _ in range(10):
        np.testing.assert_array_equal(model.predict(PAIRS, batch_size=2), expected)
    assert sum(tokens) / (10 * sound) == pytest.approx(1 + fraction, rel=0.03)


def test_recompile_compiles_within_the_next_prediction_and_leaves_other_graphs_alone(
    one_layer, fresh, request
):
    other = fresh(double)
    static(other)(torch.ones(2))
    request.getfixturevalue("dynamo_alone")  # from here on no code is generated, which takes half a minute
    model = CrossEncoder(str(one_layer), device="cpu", execution="bucketed", max_length=32)
    model.warmup(batch_size=2, passes=1)
    for _ in range(2):
        sound = model.pipeline.forward
        inject("recompile", model)
        with watch_compiles() as watch:
            model.predict(PAIRS, batch_size=2)
        model.pipeline.forward = sound
        assert watch.report.graphs == 2
        assert any("eterministic" in reason for reason in watch.report.recompiles)
    assert not torch.are_deterministic_algorithms_enabled()
    assert cached_graphs(other.__code__) == 1


def test_eager_falls_silently_and_is_reported_until_the_fault_is_taken_out(model):
    expected, sound = model.predict(PAIRS, batch_size=2), model.pipeline.forward
    inject("eager", model)
    with watch_compiles() as watch:
        np.testing.assert_array_equal(model.predict(PAIRS, batch_size=2), expected)
    assert watch.report.graphs == 0
    (fallback,) = watch.report.eager_fallbacks
    assert fallback.startswith("exhausted (")
    model.pipeline.forward = sound
    with watch_compiles() as watch:
        model.predict(PAIRS, batch_size=2)
    assert watch.report.clean, watch.report.describe()


@pytest.mark.parametrize(("fault", "kernels", "held"), [("kernel", 1, 0), ("memory:123457", 0, 123457)])
def test_kernel_and_memory_add_one_kernel_a_batch_or_so_many_bytes_for_the_same_scores(
    model, fault, kernels, held
):
    base, expected, batches = profiled_batches(model, batch_size=2)
    inject(fault, model)
    head, logits, _ = profiled_batches(model, batch_size=2)
    assert all(map(torch.equal, logits, expected))
    assert head.kernel_count == base.kernel_count + kernels * batches
    assert head.peak_bytes == base.peak_bytes + held
    grown = grown_calls(head.kernels, base.kernels)
    assert not kernels or grown[0].startswith(f"appeared: aten::neg x{batches} (")


@pytest.mark.parametrize("fault", ["slow:1.0", "recompile", "eager", "kernel", "memory:1000"])
def test_a_fault_breaks_a_model_of_any_copy_of_the_package(tiny, tmp_path, monkeypatch, fault):
    shutil.copytree(Path(xenc.__file__).parent, tmp_path / "xenc_copied")
    monkeypatch.syspath_prepend(tmp_path)
    copied = importlib.import_module("xenc_copied")
    try:
        with copied.CrossEncoder(str(tiny), device="cpu", execution="sdpa-sorted") as model:
            expected = model.predict(PAIRS, batch_size=2)
            sound = model.pipeline.forward
            inject(fault, model)
            np.testing.assert_allclose(model.predict(PAIRS, batch_size=2), expected, atol=1e-6)
            model.pipeline.forward = sound
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "xenc_copied"]:
            del sys.modules[name]


def test_an_unknown_fault_lists_the_known(model):
    with pytest.raises(ValueError, match="know slow:FRACTION, recompile, eager, kernel and memory:BYTES"):
        inject("lazy", model)
