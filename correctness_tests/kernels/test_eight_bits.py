"""Products in eight bits of our own: as exact integers say, nearer to float32 than torchao's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import xenc
from correctness_tests import checkpoints, oracle
from correctness_tests.kernels import test_twin
from correctness_tests.kernels.linear_cases import EXACT, Case
from correctness_tests.kernels.test_linear import IN_ALL_ACTIVATIONS, IN_ALL_DTYPES, OUTPUTS, cases
from correctness_tests.kernels.test_twin import MANY_PAIRS, PAIRS, logits
from xenc import watch_compiles
from xenc.kernels.layers import EightBitProduct
from xenc.models.kernel_twin import KernelTwin


@pytest.fixture(autouse=True)
def eight_bits(kernels):
    if not kernels.has_int8:
        pytest.skip("no int8 kernel for this processor: it needs AVX-512 with VNNI")


@given(case=cases)
def test_a_layer_of_any_shape_is_what_integers_say(case):
    left = case.left()
    case.assert_close(case.eight_bits()(left), case.in_integers(left))


@IN_ALL_DTYPES
@IN_ALL_ACTIVATIONS
def test_every_number_of_outputs_is_what_integers_say(dtype, activation):
    for outputs in OUTPUTS:
        case = Case(rows=13, inputs=100, outputs=outputs, activation=activation, dtype=dtype)
        left = case.left() + 2  # far from symmetric
        case.assert_close(case.eight_bits()(left), case.in_integers(left))


@IN_ALL_DTYPES
def test_rounding_is_all_that_differs_from_the_layer(dtype):
    case = Case(rows=50, inputs=256, outputs=100, dtype=dtype)
    left = case.left()
    error = (case.eight_bits()(left).double() - case.in_float64(left)).square().mean().sqrt()
    assert 1e-4 < error < 0.02


@IN_ALL_DTYPES
@pytest.mark.parametrize("number", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("inputs", [4, 12, 16, 20, 64])
def test_rows_of_one_number_lose_nothing(dtype, number, inputs):
    case = Case(inputs=inputs, dtype=dtype)
    left = torch.full((3, inputs), number, dtype=dtype)
    out = case.eight_bits()(left)
    case.assert_close(out, case.in_integers(left))
    assert (out.double() - case.in_float64(left)).abs().max() <= 0.02 * (1 + abs(number)) * inputs**0.5


@IN_ALL_DTYPES
def test_a_weight_of_zeros_leaves_the_bias(dtype):
    layer = Case(dtype=dtype).layer()
    layer.weight[3] = 0
    product = EightBitProduct()
    product.hold([layer])
    out = product(Case(dtype=dtype).left())
    assert torch.equal(out[:, 3], layer.bias[3].expand(7))
    assert out.isfinite().all()


@IN_ALL_DTYPES
def test_no_bit_of_a_row_depends_on_the_others_or_its_place_or_the_number_of_threads(dtype, threads):
    case = Case(rows=203, inputs=100, outputs=70, activation="gelu", dtype=dtype)
    product, left = case.eight_bits(), case.left()
    alone = torch.cat([product(row[None]) for row in left])
    spoiled = torch.cat([left, torch.full_like(left[:30], torch.nan), 1000 * left])
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(product(left), alone)
        assert torch.equal(product(left.flip(0)).flip(0), alone)
        assert torch.equal(product(spoiled)[:203], alone)


@IN_ALL_DTYPES
@pytest.mark.parametrize("amiss", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("inputs", [4, 16, 20, 48])
def test_a_row_that_is_not_finite_anywhere_stays_so_and_spoils_no_other(dtype, amiss, inputs):
    case = Case(rows=inputs + 1, inputs=inputs, outputs=5, dtype=dtype)
    product, left = case.eight_bits(), case.left()
    expected = product(left)[-1]
    left[:-1].fill_diagonal_(amiss)
    out = product(left)
    assert torch.equal(out[-1], expected)
    finite = out[:-1].isfinite().any(dim=1)
    assert finite.nonzero().flatten().tolist() == []


def made(checkpoint, dtype=torch.float32, **settings) -> xenc.CrossEncoder:
    return test_twin.made(checkpoint, None, dtype, quantize="int8", **settings)


ARCHITECTURES = [
    "bert", "distilbert", "modernbert", "xlm-roberta", "electra", "deberta-v3", "mpnet", "qwen2", "qwen3",
    "gemma2",
]  # fmt: skip


SEEDS = 4
"""Models of an architecture. With one label, a single model's ratio of errors is anything from 0.4 to 2.1."""


def test_scores_are_on_the_whole_no_further_from_float32_than_torchaos(tmp_path):
    """Weights round alike in both, and a model of few layers has few roundings, so models of many labels are
    averaged. Of eight such models each, an architecture's mean ratio was 0.80 to 0.99, with a spread of 18 %.
    """
    pytest.importorskip("torchao", reason="not installed: pip install 'xenc[torchao]'")
    means = []
    for architecture in ARCHITECTURES:
        logarithms = [
            np.log(ratio_to_torchao(tmp_path / f"{architecture}-{seed}", architecture, seed))
            for seed in range(SEEDS)
        ]
        means.append(np.mean(logarithms))
        assert np.exp(means[-1]) <= 1.4, architecture
    assert np.exp(np.mean(means)) <= 1


def ratio_to_torchao(folder, architecture, seed) -> float:
    """Our root mean square error against float32 over torchao's."""
    checkpoint = checkpoints.make(folder, architecture, seed=seed, num_labels=16)
    exact = oracle.logits(checkpoint, MANY_PAIRS, max_length=64)
    theirs = oracle.logits(checkpoint, MANY_PAIRS, max_length=64, quantize="int8") - exact
    model = made(checkpoint)
    assert isinstance(model.pipeline._twin, KernelTwin)
    ours = logits(model, MANY_PAIRS) - exact
    step = np.abs(exact).max() / 127  # a last bit decides between two steps, see test_quantize
    assert 0 < np.abs(ours).max() <= 2 * np.abs(theirs).max() + step
    return float(np.sqrt(np.mean(ours**2) / np.mean(theirs**2)))


@pytest.mark.parametrize(("activation", "share"), [("none", 1.02), ("gelu", 0.8)])
def test_a_layer_is_no_further_from_float64_than_torchaos_and_nearer_behind_gelu(activation, share):
    """Behind GELU nearly all of the range is on one side of zero."""
    quantization = pytest.importorskip(
        "torchao.quantization", reason="not installed: pip install 'xenc[torchao]'"
    )
    config = quantization.Int8DynamicActivationInt8WeightConfig(version=2, set_inductor_config=False)
    case = Case(rows=300, inputs=512, outputs=128)
    left, theirs = EXACT[activation](case.left()), case.layer()
    quantization.quantize_(theirs, config)
    exact = case.in_float64(left)
    off = [(out.double() - exact).square().mean().sqrt() for out in (case.eight_bits()(left), theirs(left))]
    assert 0 < off[0] <= share * off[1]


@pytest.mark.parametrize("layout", ["padded", "bucketed"])
def test_padded_layouts_multiply_by_the_same_kernel(one_layer, layout):
    model = made(one_layer, layout=layout)
    assert isinstance(model.pipeline._twin, KernelTwin)
    np.testing.assert_allclose(logits(model), logits(made(one_layer)), rtol=0, atol=0.05)


def test_torchao_is_not_needed(one_layer, monkeypatch):
    find = xenc.models.quantize.find_spec
    monkeypatch.setattr(
        "xenc.models.quantize.find_spec", lambda name: None if name == "torchao" else find(name)
    )
    model = made(one_layer)
    exact = oracle.logits(one_layer, PAIRS, max_length=64)
    assert 0 < np.abs(logits(model) - exact).max() < 0.3
    assert "xenc in int8" in model.pipeline.products


def test_compiled_scores_are_the_eager_ones_and_nothing_compiles_after_warm_up(one_layer):
    model = made(one_layer, compile_mode="default", token_budgets=(64, 128), strict=True)
    assert model.warmup().graphs == 1
    with watch_compiles() as watch:
        scores = logits(model)
    assert watch.report.clean, watch.report.describe()
    np.testing.assert_allclose(scores, logits(made(one_layer)), rtol=0, atol=0.05)


def test_a_token_is_rounded_alone_so_no_neighbour_moves_a_score(one_layer):
    model = made(one_layer, deterministic=True, token_budgets=256)
    together = logits(model)
    np.testing.assert_array_equal(np.concatenate([logits(model, [pair]) for pair in PAIRS]), together)
    np.testing.assert_array_equal(logits(model, PAIRS[::-1])[::-1], together)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_model_in_half_precision_multiplies_in_eight_bits(one_layer, dtype):
    model = made(one_layer, dtype)
    assert isinstance(model.pipeline._twin, KernelTwin)
    exact = oracle.logits(one_layer, PAIRS, max_length=64)
    assert np.sqrt(np.mean((logits(model) - exact) ** 2)) < 0.1


@given(scale=st.floats(1e-6, 1e6), shift=st.floats(-10, 10))
def test_neither_the_spread_of_a_row_nor_its_mean_costs_precision(scale, shift):
    case = Case(inputs=64, outputs=16, bias=False)
    left = (case.left() + shift) * scale
    exact = case.in_float64(left)
    assert (case.eight_bits()(left).double() - exact).abs().max() <= 0.06 * (1 + abs(shift)) * scale
