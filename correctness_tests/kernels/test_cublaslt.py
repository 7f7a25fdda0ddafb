"""The products of cuBLASLt: what they compute, where they are refused, and how they follow their weights.

A CPU runs the same operator with GELU's erf form, so the tests that are about the tanh form put it in
(`by_tanh`). What cuBLASLt itself computes is seen on a GPU alone.
"""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import xenc
from correctness_tests import checkpoints, oracle
from correctness_tests.kernels.linear_cases import EXACT, Case
from correctness_tests.kernels.test_followed import in_place, query_data_written, query_in_place
from correctness_tests.kernels.test_twin import MANY_PAIRS, logits
from xenc import DEFAULT_MODEL, Execution, ExecutionError, watch_compiles
from xenc.kernels.layers import FUSED, CublasLtProduct
from xenc.kernels.products import chosen
from xenc.models import kernel_twin
from xenc.models.kernel_twin import KernelTwin, twin_for

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
BY_CUBLASLT = Execution(products="cublaslt", compile_mode=None)


def held(case: Case, device: str = "cpu") -> CublasLtProduct:
    product = CublasLtProduct(case.activation)
    product.hold([case.layer().to(device)])
    return product


def with_tanh(bias, left, weight, *, use_gelu):
    """As on CUDA: in the tanh form, before the sums are rounded."""
    assert use_gelu
    sums = left.float() @ weight.float() + bias.float()
    return functional.gelu(sums, approximate="tanh").to(left.dtype)


@pytest.fixture
def by_tanh(monkeypatch):
    """Models on a CPU have this twin, with the arithmetic of CUDA."""
    monkeypatch.setattr(torch, "_addmm_activation", with_tanh)
    monkeypatch.setattr(kernel_twin, "_why_plain", lambda model, execution: None)
    monkeypatch.setattr(kernel_twin, "why_not", lambda way, dtype: None)


def model_by_cublaslt(checkpoint, dtype=torch.bfloat16, device="cpu", **settings) -> xenc.CrossEncoder:
    execution = Execution(**{"products": "cublaslt", "compile_mode": None, **settings})
    model = xenc.CrossEncoder(
        str(checkpoint), device=device, execution=execution, model_kwargs={"dtype": dtype}
    )
    assert isinstance(model.pipeline._twin, KernelTwin)
    assert model.pipeline.products.startswith("cublaslt for ")
    return model


def products_of(model: xenc.CrossEncoder) -> list[CublasLtProduct]:
    return [module for module in model.pipeline._twin.model.modules() if isinstance(module, CublasLtProduct)]


def test_the_two_forms_of_gelu_differ_by_less_than_half_a_step_of_either_dtype_there():
    inputs = torch.linspace(-10, 10, 2_000_001, dtype=torch.float64)
    off = (functional.gelu(inputs, approximate="tanh") - functional.gelu(inputs)).abs()
    assert 4.7e-4 < off.max().item() <= 4.8e-4
    at = inputs[off.argmax()].abs().item()
    assert at == pytest.approx(2.7, abs=0.01)
    for dtype in (torch.bfloat16, torch.float16):
        assert off.max().item() < torch.finfo(dtype).eps * 2 / 2  # steps between 2 and 4 are 2 eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_layer_is_right_in_any_number_of_dimensions(dtype, activation, bias, monkeypatch):
    """But for the form of GELU, which a CPU has another of."""
    case = Case(rows=12, outputs=37, activation=activation, bias=bias, dtype=dtype)
    product, left = held(case), case.left()
    if activation == "gelu_tanh":
        monkeypatch.setattr(torch, "_addmm_activation", with_tanh)
    case.assert_close(product(left), case.in_float64(left))
    for shape in ((1, 12), (3, 4), (2, 2, 3)):
        assert torch.equal(product(left.view(*shape, -1)), product(left).view(*shape, -1))


@pytest.mark.usefixtures("by_tanh")
@HALVES
@pytest.mark.parametrize("checkpoint", ["default", "xlm-roberta", "distilbert", "electra"])
def test_scores_with_tanh_err_at_most_twice_as_much_as_plain_eager_execution(tmp_path, checkpoint, dtype):
    made = DEFAULT_MODEL if checkpoint == "default" else checkpoints.make(tmp_path, checkpoint)
    model = model_by_cublaslt(made, dtype)
    assert sum(product.activation == "gelu" for product in products_of(model)) > 0
    assert_law(model, made, dtype)


def assert_law(model: xenc.CrossEncoder, checkpoint, dtype: torch.dtype, device: str = "cpu") -> None:
    """The project's, and that the mean error is hardly more than plain execution's."""
    pairs = MANY_PAIRS[:32]
    model.max_seq_length = 64
    exact = oracle.logits(checkpoint, pairs, max_length=64, device=device)
    plain = oracle.logits(checkpoint, pairs, max_length=64, device=device, dtype=dtype) - exact
    off = logits(model, pairs) - exact
    band = torch.finfo(dtype).eps * np.abs(exact).max()
    assert np.abs(off).max() <= 2 * np.abs(plain).max() + band
    assert np.sqrt(np.mean(off**2)) <= 1.5 * np.sqrt(np.mean(plain**2)) + band


@pytest.mark.usefixtures("by_tanh")
@pytest.mark.parametrize(
    ("fused", "joint", "found"),
    [
        (("gelu",), True, {"gelu": 2, "none": 8, "joint": 1}),
        ((), True, {"gelu": 0, "none": 10, "joint": 1}),
        (("gelu",), False, {"gelu": 2, "none": 10, "joint": 0}),
    ],
    ids=["both", "joint product alone", "GELU alone"],
)
def test_each_change_can_be_had_by_itself(tmp_path, fused, joint, found):
    """And of the last layer, where only pooled tokens ask, query, key and value are never joined."""
    checkpoint = checkpoints.make(tmp_path, "bert", num_hidden_layers=2)
    plain = xenc.CrossEncoder(str(checkpoint), device="cpu", execution=Execution(products="torch"))
    with mock.patch.dict(FUSED, {"cublaslt": frozenset(fused)}):
        twin = KernelTwin(plain.transformers_model, "cublaslt", joint=joint)
    counts = {"gelu": 0, "none": 0, "joint": sum(len(one.layers) == 3 for one in twin._products)}
    for one in twin._products:
        counts[one.product.activation] += 1
    assert counts == found
    assert (twin.held_bytes > 0) == joint


def test_a_layer_without_a_bias_has_one_of_zeros_only_where_gelu_needs_it():
    for activation, has in (("none", False), ("gelu", True)):
        product = held(Case(bias=False, activation=activation))
        assert (product.bias is not None) == has
    assert not product.bias.any()


def test_single_layers_are_not_copied_and_a_copy_stays_where_it_is():
    layers = [nn.Linear(8, 4) for _ in range(3)]
    single, joint = CublasLtProduct(), CublasLtProduct()
    for _ in range(2):
        single.hold(layers[:1])
        joint.hold(layers)
        assert single.weight.data_ptr() == layers[0].weight.data_ptr()
        assert torch.equal(joint.weight, torch.cat([layer.weight for layer in layers]))
        assert torch.equal(joint.bias, torch.cat([layer.bias for layer in layers]))
        before = joint.weight.data_ptr(), joint.bias.data_ptr()
        for layer in layers:
            layer.weight.data.mul_(2)
            layer.bias.data.mul_(2)
    joint.hold(layers)
    assert (joint.weight.data_ptr(), joint.bias.data_ptr()) == before
    joint.hold([layer.half() for layer in layers])
    assert joint.weight.dtype == torch.float16


@pytest.mark.usefixtures("by_tanh")
@pytest.mark.parametrize("change", [in_place, query_in_place])
def test_changed_weights_show_in_the_next_score(tmp_path, change):
    model = model_by_cublaslt(checkpoints.make(tmp_path, "bert", num_hidden_layers=2), torch.float32)
    before = logits(model)
    change(model.transformers_model)
    assert_scores_as(model, np.abs(logits(model) - before).max())


def assert_scores_as(model: xenc.CrossEncoder, moved: float, atol: float = 5e-3) -> None:
    """As the same model by PyTorch, and not as before."""
    assert moved > 2 * atol
    now, execution = logits(model), model.execution
    model.execution = Execution(products="torch", compile_mode=None)
    np.testing.assert_allclose(now, logits(model), rtol=0, atol=atol)
    model.execution = execution


def stand_in(device: str, dtype: torch.dtype = torch.bfloat16) -> SimpleNamespace:
    """What the choice of products asks of a model, which need not be on that device."""
    return SimpleNamespace(device=torch.device(device), dtype=dtype, named_modules=list)


@pytest.mark.parametrize("way", ["onednn", "xenc"])
def test_what_is_for_cpus_is_refused_on_cuda(way):
    with pytest.raises(ExecutionError, match=rf"products='{way}': it is for CPUs.* on cuda\. Use products=N"):
        twin_for(stand_in("cuda"), Execution(products=way))


def test_on_a_cpu_cublaslt_is_refused(one_layer):
    with pytest.raises(ExecutionError, match=r"products='cublaslt': it needs CUDA.* on the CPU\. Use prod"):
        xenc.CrossEncoder(str(one_layer), device="cpu", execution=BY_CUBLASLT)


def test_in_float32_cublaslt_is_refused():
    with pytest.raises(ExecutionError, match=r"products='cublaslt': .*bfloat16 and float16, not float32\. U"):
        twin_for(stand_in("cuda", torch.float32), BY_CUBLASLT)


def test_a_model_with_somebodys_code_is_refused(monkeypatch):
    monkeypatch.setattr(kernel_twin, "foreign_code", lambda model: "somebody's hooks run")
    with pytest.raises(ExecutionError, match=r"products='cublaslt': somebody's hooks run\. Use products=Non"):
        twin_for(stand_in("cuda"), BY_CUBLASLT)


@pytest.mark.parametrize("asked", [None, "torch"])
def test_on_cuda_pytorch_multiplies_unless_somebody_asks(asked):
    assert twin_for(stand_in("cuda"), Execution(products=asked)) == (None, "torch (on cuda)")


def test_the_default_on_cuda_is_one_line(monkeypatch):
    monkeypatch.setattr("xenc.kernels.products.ON_CUDA", "cublaslt")
    monkeypatch.setattr(kernel_twin, "ON_CUDA", "cublaslt")
    assert str(chosen(torch.bfloat16, None, "cuda")) == "cublaslt for bfloat16, by default"
    for dtype, layout, why in (
        (torch.float32, "packed", "cuBLASLt is for bfloat16 and float16, not float32"),
        (torch.bfloat16, "bucketed", "cuBLASLt is for packed batches"),
    ):
        assert twin_for(stand_in("cuda", dtype), Execution(layout=layout)) == (None, f"torch ({why})")
    assert twin_for(stand_in("cuda"), Execution(products="torch")) == (None, "torch (on cuda)")


@pytest.mark.gpu
@HALVES
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh"])
def test_on_a_gpu_a_layer_is_right_with_gelu_in_its_tanh_form(dtype, activation):
    form = "gelu_tanh" if activation == "gelu" else activation
    for bias in (True, False):
        for rows in (1, 8, 256):
            case = Case(
                rows=rows, inputs=128, outputs=256, activation=activation, bias=bias, dtype=dtype, seed=rows
            )
            product, left, layer = held(case, "cuda"), case.left(), case.layer().double()
            sums = functional.linear(left.double(), layer.weight, layer.bias)
            case.assert_close(product(left.cuda()).cpu(), EXACT[form](sums), steps=4)


@pytest.mark.gpu
def test_on_a_gpu_gelu_is_within_the_distance_of_the_two_forms():
    """In float32, whose rounding hides nothing; the processor's own tanh is exact to about 5e-4."""
    case = Case(rows=256, inputs=128, outputs=256, activation="gelu")
    product, left = held(case, "cuda"), case.left()
    assert (product(left.cuda()).cpu().double() - case.in_float64(left)).abs().max() < 1.5e-3


@pytest.mark.gpu
@HALVES
@pytest.mark.parametrize("mode", [None, "default", "reduce-overhead"])
@pytest.mark.parametrize("architecture", ["xlm-roberta", "distilbert"])
def test_on_a_gpu_scores_err_at_most_twice_as_much_as_plain_eager_execution(
    tmp_path, architecture, mode, dtype
):
    checkpoint = checkpoints.make(tmp_path, architecture, num_hidden_layers=2)
    settings = {"compile_mode": mode, "strict": True, "token_budgets": (256, 512)}
    with model_by_cublaslt(checkpoint, dtype, "cuda", **settings) as model:
        model.max_seq_length = 64
        model.warmup()
        with watch_compiles() as watch:
            assert_law(model, checkpoint, dtype, "cuda")
        assert watch.report.clean, watch.report.describe()


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("change", [in_place, query_in_place, query_data_written])
def test_on_a_gpu_changed_weights_show_in_the_next_score_and_compile_nothing(tmp_path, change, mode):
    checkpoint = checkpoints.make(tmp_path, "bert", num_hidden_layers=2)
    settings = {"compile_mode": mode, "strict": True, "token_budgets": (256,)}
    with model_by_cublaslt(checkpoint, torch.float16, "cuda", **settings) as model:
        model.warmup()
        before = logits(model)
        change(model.transformers_model)
        with watch_compiles() as watch:
            after = logits(model)
        assert watch.report.clean, watch.report.describe()
        assert_scores_as(model, np.abs(after - before).max(), atol=5e-2)
