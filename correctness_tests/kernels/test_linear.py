"""Linear layers by our kernel against float64; and no bit of a row depends on anything but that row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from correctness_tests.kernels.linear_cases import EXACT, Case
from xenc.kernels.layers import KernelProduct, OneDnnProduct
from xenc.kernels.library import DTYPES
from xenc.kernels.products import ACTIVATIONS, Held, by_kernel, kernel_weight

pytestmark = pytest.mark.usefixtures("kernels")

IN_ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
IN_ALL_ACTIVATIONS = pytest.mark.parametrize("activation", ACTIVATIONS)
OUTPUTS = (1, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 129)
ROWS = (1, 2, 5, 6, 7, 11, 12, 13, 95, 96, 97, 200)

cases = st.builds(
    Case,
    rows=st.one_of(st.integers(1, 30), st.sampled_from(ROWS)),
    inputs=st.one_of(st.integers(1, 40), st.integers(1, 200)).map(lambda quarter: 4 * quarter),
    outputs=st.one_of(st.sampled_from(OUTPUTS), st.integers(1, 300)),
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)


def test_there_is_a_law_for_every_activation():
    assert set(EXACT) == set(ACTIVATIONS)


@given(case=cases)
def test_a_layer_of_any_shape_is_right(case):
    left = case.left()
    case.assert_close(case.kernel()(left), case.in_float64(left))


@IN_ALL_DTYPES
@IN_ALL_ACTIVATIONS
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_every_number_of_outputs_is_right(dtype, activation, bias):
    for outputs in OUTPUTS:
        case = Case(rows=13, outputs=outputs, activation=activation, bias=bias, dtype=dtype)
        left = case.left()
        case.assert_close(case.kernel()(left), case.in_float64(left))


@IN_ALL_DTYPES
@pytest.mark.parametrize("rows", ROWS)
def test_every_number_of_rows_is_right(dtype, rows):
    case = Case(rows=rows, outputs=130, activation="gelu", dtype=dtype)
    left = case.left()
    case.assert_close(case.kernel()(left), case.in_float64(left))


@IN_ALL_DTYPES
@IN_ALL_ACTIVATIONS
def test_an_activation_is_right_far_from_zero_and_near_it(dtype, activation):
    case = Case(rows=401, inputs=4, outputs=1, activation=activation, bias=False, dtype=dtype)
    product, layer = KernelProduct(activation), case.layer()
    layer.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
    product.hold([layer])
    numbers = torch.cat([torch.linspace(-12, 12, 301), torch.logspace(-6, 4, 50), -torch.logspace(-6, 4, 50)])
    left = functional.pad(numbers[:, None], (0, 3)).to(dtype)
    exact = EXACT[activation](left[:, :1].double())
    off = (product(left).double() - exact).abs()
    assert (off <= 2 * torch.finfo(dtype).eps * exact.abs() + 1e-6 * (1 + left[:, :1].double().abs())).all()


@IN_ALL_DTYPES
def test_no_bit_of_a_row_depends_on_the_others_or_its_place_or_the_number_of_threads(dtype, threads):
    case = Case(rows=203, inputs=100, outputs=70, activation="gelu", dtype=dtype)
    product, left = case.kernel(), case.left()
    alone = torch.cat([product(row[None]) for row in left])
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(product(left), alone)
        assert torch.equal(product(left.flip(0)).flip(0), alone)
        assert torch.equal(product(left[5:60]), alone[5:60])
    others = torch.cat([left[:9], torch.full_like(left[:30], torch.nan), left[9:]])
    assert torch.equal(torch.cat([product(others)[:9], product(others)[39:]]), alone)


@IN_ALL_DTYPES
def test_rows_of_any_layout_are_the_same_rows(dtype):
    case = Case(rows=24, inputs=40, outputs=33, dtype=dtype)
    product, left = case.kernel(), case.left()
    expected = product(left)
    wide = torch.full((24, 55), torch.nan, dtype=dtype)
    wide[:, 3:43] = left
    for same in (left.T.contiguous().T, wide[:, 3:43]):
        assert not same.is_contiguous()
        assert torch.equal(product(same), expected)
    assert torch.equal(product(left.view(2, 3, 4, 40)), expected.view(2, 3, 4, 33))
    assert torch.equal(product(left.view(4, 6, 40).transpose(0, 1)), expected.view(4, 6, 33).transpose(0, 1))
    assert torch.equal(product(left[0]), expected[0])
    assert product(left[:0]).shape == (0, 33)


@IN_ALL_DTYPES
@pytest.mark.parametrize("amiss", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_a_row_that_is_not_finite_stays_so_and_spoils_no_other(dtype, amiss):
    case = Case(rows=14, outputs=37, dtype=dtype)
    product, left = case.kernel(), case.left()
    expected = product(left)
    left[5, 63] = amiss
    out = product(left)
    assert not out[5].isfinite().any()
    assert torch.equal(out[:5], expected[:5])
    assert torch.equal(out[6:], expected[6:])


@IN_ALL_DTYPES
def test_several_layers_in_one_product_are_side_by_side(dtype):
    layers = [Case(outputs=outputs, bias=outputs != 7, seed=outputs, dtype=dtype) for outputs in (40, 7, 19)]
    left = layers[0].left()
    for product in (KernelProduct(), *([] if dtype == torch.float16 else [OneDnnProduct()])):
        product.hold([each.layer() for each in layers])
        assert product.outputs == 66
        parts = product(left).split((40, 7, 19), dim=1)
        for each, part in zip(layers, parts, strict=True):
            each.assert_close(part.contiguous(), each.in_float64(left))


@IN_ALL_DTYPES
def test_panels_hold_every_weight_once_and_zeros_beyond_the_last(kernels, dtype):
    layer = Case(inputs=24, outputs=37, dtype=dtype).layer()
    depth = kernels.bfloat16_depth if dtype == torch.bfloat16 else 1
    laid, padded, scales, sums = kernel_weight(layer.weight, layer.bias)
    assert scales is sums is None
    assert laid.shape == (-(-37 // kernels.panel_columns), 24 // depth, kernels.panel_columns, depth)
    back = laid.permute(0, 2, 1, 3).reshape(-1, 24)
    assert torch.equal(back[:37], layer.weight)
    assert not back[37:].any()
    assert len(padded) % kernels.panel_columns == 0
    assert torch.equal(padded[:37], layer.bias.float())
    assert not padded[37:].any()


@IN_ALL_DTYPES
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_onednn_multiplies_as_pytorch(dtype, activation, bias):
    case = Case(rows=29, outputs=37, activation=activation, bias=bias, dtype=dtype)
    left = case.left()
    try:
        out = case.onednn()(left)
    except RuntimeError as refused:
        pytest.skip(f"oneDNN: {refused}")
    case.assert_close(out, case.in_float64(left))


def test_what_is_compiled_is_described_right():
    case = Case(activation="gelu")
    left, product = case.left(), case.kernel()
    weight, bias, *_ = kernel_weight(case.layer().weight, case.layer().bias)
    held = Held(weight.to("meta"), bias.to("meta"))
    described = by_kernel(torch.empty(2, 3, 64, device="meta"), held, 48, "gelu")
    assert (described.shape, described.dtype) == ((2, 3, 48), torch.float32)
    assert described.is_contiguous()
    torch._dynamo.reset()
    compiled = torch.compile(product, backend="eager", fullgraph=True)
    assert torch.equal(compiled(left), product(left))


def test_a_dtype_without_a_kernel_is_refused(kernels):
    held = kernel_weight(torch.zeros(4, 8), torch.zeros(4))
    with pytest.raises(RuntimeError, match="no kernel for Double"):
        by_kernel(torch.zeros(2, 8, dtype=torch.float64), held, 4, "none")


def test_a_layers_own_weights_are_not_written_to():
    case = replace(Case(), dtype=torch.bfloat16)
    layer = case.layer()
    before = [part.clone() for part in layer.parameters()]
    for product in (KernelProduct("gelu"), OneDnnProduct("gelu")):
        product.hold([layer])
        product(case.left())
    assert all(torch.equal(*pair) for pair in zip(layer.parameters(), before, strict=True))
    assert type(layer) is nn.Linear
