"""Scores of every packable architecture, by each way of multiplying, are the oracle's; and no bit wanders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import xenc
from correctness_tests import checkpoints, oracle
from correctness_tests.kernels.test_replace import EXPECTED, LowRank
from correctness_tests.strategies import FEW
from perf_tests import workloads
from xenc import Execution, ExecutionError, watch_compiles
from xenc.kernels.library import Library
from xenc.models.kernel_twin import KernelTwin
from xenc.profiling.kernel_names import ATTENTION, MATRIX_PRODUCTS, class_of
from xenc.profiling.kernels import profile_pass

pytestmark = pytest.mark.usefixtures("kernels")

LENGTHS = [10, 300, 80, 20, 150, 0, 40, 400, 60, 220, 5, 110]
PAIRS = [
    (query[:60], document[:length])
    for (query, document), length in zip(
        workloads.seed(pairs=12, batch_size=8).round(-1), LENGTHS, strict=True
    )
]
MANY_PAIRS = [
    (query[:60], document[: 40 + 7 * number % 300])
    for number, (query, document) in enumerate(workloads.seed(pairs=48, batch_size=8).round(-1))
]
WAYS = pytest.mark.parametrize("way", ["xenc", "onednn"])
PACKABLE = (*EXPECTED, "modernbert-mean", "qwen3-windows")


def made(checkpoint, way, dtype=torch.float32, **settings) -> xenc.CrossEncoder:
    execution = Execution(**{"products": way, "compile_mode": None, **settings})
    return xenc.CrossEncoder(
        str(checkpoint), device="cpu", execution=execution, model_kwargs={"dtype": dtype}
    )


def logits(model: xenc.CrossEncoder, pairs=PAIRS) -> np.ndarray:
    return model.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=4)


@WAYS
@pytest.mark.parametrize("architecture", PACKABLE)
def test_scores_are_the_oracles(tmp_path, architecture, way):
    checkpoint = checkpoints.make(tmp_path, architecture)
    model = made(checkpoint, way)
    assert isinstance(model.pipeline._twin, KernelTwin)
    exact = oracle.logits(checkpoint, PAIRS, max_length=64)
    assert exact.std() > 0.1
    np.testing.assert_allclose(logits(model), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("architecture", ["bert", "modernbert", "qwen3"])
def test_scores_in_half_precision_are_no_further_off_than_pytorchs(tmp_path, architecture, dtype):
    """Root mean squares: which single score is furthest off is chance, in PyTorch's own two ways as well."""
    checkpoint = checkpoints.make(tmp_path, architecture)
    exact = oracle.logits(checkpoint, MANY_PAIRS, max_length=64)
    alone = oracle.logits(checkpoint, MANY_PAIRS, max_length=64, dtype=dtype)
    ours, packed = (logits(made(checkpoint, way, dtype), MANY_PAIRS) for way in ("xenc", "torch"))
    off = [np.sqrt(np.mean((scores - exact) ** 2)) for scores in (ours, packed, alone)]
    assert 0 < off[0] <= 1.25 * off[1]
    assert off[0] <= 1.5 * off[2]


@WAYS
@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_compiled_scores_are_the_oracles_in_one_graph_and_nothing_compiles_after_warm_up(
    tmp_path, architecture, way
):
    checkpoint = checkpoints.make(tmp_path, architecture)
    model = made(checkpoint, way, compile_mode="default", token_budgets=(64, 128), strict=True)
    assert isinstance(model.pipeline._twin, KernelTwin)
    report = model.warmup()
    assert report.graphs == 1
    assert report.products.startswith(f"{way} for float32, as asked for")
    with watch_compiles() as watch:
        scores = logits(model)
    assert watch.report.clean, watch.report.describe()
    np.testing.assert_allclose(scores, oracle.logits(checkpoint, PAIRS, max_length=64), rtol=0, atol=1e-4)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def deterministic(request, tiny):
    with made(tiny, "xenc", request.param, deterministic=True, token_budgets=512) as model:
        yield model


@pytest.fixture(scope="module")
def alone(deterministic):
    return {pair: bits(deterministic, [pair])[0] for pair in PAIRS}


def bits(model, pairs) -> list[int]:
    return logits(model, list(pairs)).view(np.int32).tolist()


@FEW
@given(pairs=st.lists(st.sampled_from(PAIRS), min_size=1, max_size=40))
def test_neighbours_and_order_change_no_bit(deterministic, alone, pairs):
    assert isinstance(deterministic.pipeline._twin, KernelTwin)
    assert bits(deterministic, pairs) == [alone[pair] for pair in pairs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_number_of_threads_changes_no_bit(tiny, dtype, threads):
    answers = []
    for count in (1, 2):
        threads(count)
        with made(tiny, "xenc", dtype, deterministic=True, token_budgets=512) as model:
            answers.append(bits(model, PAIRS))
    assert answers[0] == answers[1]


def test_the_twin_shares_what_it_does_not_hold(one_layer):
    model = made(one_layer, "xenc")
    twin, original = model.pipeline._twin, model.transformers_model
    own = {id(part) for part in (*original.parameters(), *original.buffers())}
    held = {id(part) for one in twin._products for part in one.product.buffers()}
    assert all(id(part) in own for part in twin.model.parameters())
    assert all(id(part) in own | held for part in twin.model.buffers())
    dense = [layer for layer in original.bert.encoder.modules() if type(layer) is torch.nn.Linear]
    assert twin.held_bytes >= sum(layer.weight.nbytes for layer in dense)
    assert "MB of weights held" in model.pipeline.products


@WAYS
def test_a_model_that_cannot_have_them_is_refused_with_the_reason(tmp_path, one_layer, way, monkeypatch):
    model = made(one_layer, None)
    output = model.transformers_model.bert.encoder.layer[0].output
    output.dense = LowRank(output.dense)
    with pytest.raises(ExecutionError, match=f"products='{way}': somebody's LowRank.*Use products=None"):
        model.execution = Execution(products=way, compile_mode=None)


def test_without_the_library_our_own_is_refused_with_the_reason(one_layer, monkeypatch):
    monkeypatch.setattr("xenc.models.kernel_twin.library", lambda: Library(missing="no compiler here"))
    with pytest.raises(ExecutionError, match=r"products='xenc': no compiler here\. Use products=None"):
        made(one_layer, "xenc")


def test_each_kernel_is_counted_once_as_what_it_is(tmp_path):
    model = made(checkpoints.make(tmp_path, "bert", num_hidden_layers=2), "xenc")
    logits(model)
    batches = model.last_report.batches
    from perf_tests.device_thread import on_device_thread

    profiled = profile_pass(lambda: logits(model), device="cpu", on_device=on_device_thread(model))
    counts = {name: count for name, (count, _) in profiled.kernels.items()}
    assert counts["xenc_kernels::attention"] == counts["xenc_kernels::pooled_attention"] == batches
    assert counts["xenc_kernels::linear"] == (4 + 6) * batches
    assert not any(name.startswith("xenc::") for name in counts)
    assert class_of("xenc_kernels::attention") == class_of("xenc_kernels::pooled_attention") == ATTENTION
    assert class_of("xenc_kernels::linear") == MATRIX_PRODUCTS
    assert class_of("xenc_kernels::onednn_linear") == MATRIX_PRODUCTS


@pytest.mark.parametrize("laid_out", ["apart", "transposed"])
def test_attention_that_copies_its_arguments_first_is_counted_all_the_same(laid_out):
    from correctness_tests.kernels.attention_cases import Case

    case = Case(lengths=(20, 30), laid_out=laid_out)
    parts = case.parts()
    profiled = profile_pass(lambda: case.attend(*parts), device="cpu")
    assert profiled.kernels["xenc_kernels::attention"][0] == 1
