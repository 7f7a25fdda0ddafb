"""Where somebody's code runs in a model, no kernel stands for what it cannot know."""

from __future__ import annotations

import functools
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertSelfAttention

import xenc
from correctness_tests import checkpoints
from correctness_tests.kernels.test_followed import expected
from correctness_tests.kernels.test_replace import LowRank
from correctness_tests.kernels.test_twin import logits, made
from xenc import Execution, ExecutionError, NotInstalledError
from xenc.kernels.products import ways
from xenc.models.foreign_code import foreign_code
from xenc.models.quantize import encoder_layers

pytestmark = pytest.mark.usefixtures("kernels")


class Reads(nn.Module):
    """Feed-forward that reads more of its layer than what the layer answers."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        answered = nn.functional.linear(hidden, self.dense.weight, self.dense.bias)
        return answered * self.dense.out_features / self.dense.weight.abs().mean() / 1e4


class Scaled(nn.Module):
    """By a tensor that is neither a parameter nor a buffer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.factor = inner, torch.tensor(1.0)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden) * self.factor


def block_of(model: xenc.CrossEncoder):
    return model.transformers_model.bert.encoder.layer[0]


def adapt(model: xenc.CrossEncoder) -> None:
    torch.manual_seed(0)
    block_of(model).attention.self.query = LowRank(block_of(model).attention.self.query)


def read(model: xenc.CrossEncoder) -> None:
    block_of(model).intermediate.dense = Reads(block_of(model).intermediate.dense)


def assert_as_transformers(model: xenc.CrossEncoder, before: np.ndarray | None = None) -> np.ndarray:
    """The scores are those of the model's own forward pass, and not what they were."""
    scores = logits(model)
    np.testing.assert_allclose(scores, expected(model), rtol=1e-4, atol=1e-4)
    assert before is None or np.abs(scores - before).max() > 1e-2
    return scores


@pytest.mark.parametrize("change", [adapt, read])
def test_a_module_of_somebody_elses_has_its_layers_as_it_made_them(preferred, checkpoint, change):
    model = preferred(checkpoint)
    before = logits(model)
    change(model)
    assert_as_transformers(model, before)
    assert "somebody's" in model.pipeline.products


def test_what_an_adapter_is_scaled_by_shows_in_the_next_score(preferred, checkpoint):
    model = preferred(checkpoint)
    adapt(model)
    before = assert_as_transformers(model)
    block_of(model).attention.self.query.scaling["default"] = 9.0
    assert_as_transformers(model, before)


@pytest.mark.parametrize("filled", [False, True], ids=["replaced", "written to"])
def test_a_tensor_that_is_a_plain_attribute_shows_in_the_next_score(preferred, checkpoint, filled):
    model = preferred(checkpoint)
    block_of(model).output.dense = Scaled(block_of(model).output.dense)
    before, scaled = assert_as_transformers(model), block_of(model).output.dense
    scaled.factor = scaled.factor.fill_(-2.0) if filled else torch.tensor(-2.0)
    assert_as_transformers(model, before)


@pytest.mark.parametrize("anew", [False, True], ids=["written into the dict", "another dict"])
def test_an_adapter_and_its_scale_are_followed_in_eight_bits_too(checkpoint, anew):
    pytest.importorskip("torchao.quantization", reason="not installed: pip install 'xenc[torchao]'")
    model, another = (made(checkpoint, None, quantize="int8") for _ in range(2))
    adapt(model)
    before = logits(model)
    np.testing.assert_allclose(before, expected(model), rtol=0, atol=0.2)
    adapt(another)
    for each in (model, another):
        adapter = block_of(each).attention.self.query
        adapter.scaling = {} if anew else adapter.scaling
        adapter.scaling["default"] = 40.0
    np.testing.assert_array_equal(logits(model), logits(another))
    assert np.abs(logits(model) - before).max() > 0.3


def closure(forward, module):
    return lambda *arguments: forward(module, *arguments)


@pytest.mark.parametrize("wrap", [types.MethodType, functools.partial, closure])
def test_a_wrapped_forward_runs_as_transformers_runs_it_even_if_eight_bits_were_asked_for(checkpoint, wrap):
    model = made(checkpoint, None, quantize="int8")
    before, output = logits(model), block_of(model).output
    own = type(output).forward

    def doubled(module, *arguments):
        return own(module, *arguments) * 2

    output.forward = wrap(doubled, output)
    assert_as_transformers(model, before)


@pytest.mark.parametrize("part", ["", "bert", "bert.encoder.layer.0"])
def test_a_model_that_was_compiled_in_place_is_scored_as_before(preferred, checkpoint, part):
    model = preferred(checkpoint)
    before = logits(model)
    model.transformers_model.get_submodule(part).compile(backend="eager")
    np.testing.assert_allclose(logits(model), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("named", [False, True], ids=["plainly", "under the name of what it wraps"])
@pytest.mark.parametrize("kind", [BertSelfAttention, nn.Linear], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("when", ["before the model is loaded", "after it has scored"])
def test_a_class_that_somebody_patched_runs_as_patched(monkeypatch, checkpoint, kind, named, when, preferred):
    own = kind.forward

    def patched(self, *arguments, **options):
        answered = own(self, *arguments, **options)
        return (answered[0] * 0.5, *answered[1:]) if isinstance(answered, tuple) else answered * 0.5

    if named:
        patched = functools.wraps(own)(patched)
    model = preferred(checkpoint)
    before = logits(model)
    monkeypatch.setattr(kind, "forward", patched)
    if when == "before the model is loaded":
        model = made(checkpoint, None)
    assert_as_transformers(model, before)
    monkeypatch.undo()
    np.testing.assert_array_equal(logits(preferred(checkpoint)), before)


def test_what_runs_instead_of_our_own_is_said_where_it_was_asked_for(checkpoint):
    model = made(checkpoint, "xenc")
    logits(model)
    adapt(model)
    reason = r"products='xenc': somebody's LowRank runs in bert.encoder.layer.0.attention.self.query"
    with pytest.raises(ExecutionError, match=reason):
        logits(model)


def test_hooks_on_every_module_run(preferred, checkpoint):
    model = preferred(checkpoint)
    before, ran = logits(model), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: ran.append(type(module)))
    try:
        np.testing.assert_allclose(logits(model), before, rtol=0, atol=1e-4)
    finally:
        handle.remove()
    assert nn.Linear in ran
    np.testing.assert_array_equal(logits(model), before)


@pytest.mark.parametrize("architecture", [*checkpoints.ARCHITECTURES])
def test_models_as_transformers_makes_them_hold_nobody_elses_code(architecture, tmp_path):
    model = xenc.CrossEncoder(
        str(checkpoints.make(tmp_path, architecture)), device="cpu", execution=Execution(compile_mode=None)
    )
    logits(model)
    assert foreign_code(model.transformers_model) is None


def test_weights_of_another_dtype_are_refused_and_not_read_as_what_they_are_not(checkpoint):
    model = made(checkpoint, "xenc")
    logits(model)
    block_of(model).intermediate.dense.half()
    with pytest.raises(RuntimeError, match="dtype"):
        logits(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layers_that_were_cut_to_an_odd_number_of_inputs_are_left_to_pytorch(preferred, checkpoint, dtype):
    model = preferred(checkpoint)
    model.transformers_model.to(dtype)
    logits(model)
    block = block_of(model)
    with torch.no_grad():
        for layer, part in ((block.intermediate.dense, "rows"), (block.output.dense, "columns")):
            kept = layer.weight[:101] if part == "rows" else layer.weight[:, :101]
            layer.weight = nn.Parameter(kept.clone())
        block.intermediate.dense.bias = nn.Parameter(block.intermediate.dense.bias[:101].clone())
    np.testing.assert_allclose(
        logits(model), expected(model), rtol=0, atol=1e-4 if dtype == torch.float32 else 0.15
    )


def test_layers_that_torchao_quantised_after_loading_are_left_to_it(preferred, checkpoint):
    pytest.importorskip("torchao.quantization", reason="not installed: pip install 'xenc[torchao]'")
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = preferred(checkpoint)
    before = logits(model)
    quantize_(model.transformers_model.bert.encoder, Int8DynamicActivationInt8WeightConfig())
    np.testing.assert_allclose(logits(model), before, rtol=0, atol=0.2)


def test_a_layer_whose_weight_is_computed_is_refused_in_eight_bits_with_the_remedy(checkpoint):
    pytest.importorskip("torchao.quantization", reason="not installed: pip install 'xenc[torchao]'")
    model = made(checkpoint, None)
    del block_of(model).output.dense.weight
    block_of(model).output.dense.weight = torch.zeros(128, 256)
    with pytest.raises(ExecutionError, match=r"output\.dense has no weight of its own.*remove_weight_norm"):
        model.execution = Execution(quantize="int8", products="torch", compile_mode=None)


def test_measuring_leaves_the_processs_random_numbers_as_they_are():
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    ways(torch.float32, 8, 8, 8)
    assert torch.equal(torch.rand(3), first)


def test_an_attribute_that_cannot_be_copied_leaves_the_model_to_pytorch_and_says_so(preferred, checkpoint):
    model = preferred(checkpoint)
    before = logits(model)
    model.transformers_model.note = threading.Lock()
    np.testing.assert_allclose(logits(model), before, rtol=0, atol=1e-5)
    assert "cannot be copied" in model.pipeline.products


@pytest.mark.parametrize("way", ["xenc", "onednn"])
def test_a_way_that_was_asked_for_is_not_silently_another(checkpoint, way):
    model = made(checkpoint, None)
    logits(model)
    for layer in encoder_layers(model.transformers_model):
        nn.utils.parametrizations.weight_norm(layer)
    with pytest.raises(ExecutionError, match="no layers that a kernel can replace"):
        model.execution = Execution(products=way, compile_mode=None)


def test_a_hook_is_known_by_where_it_was_written_and_not_by_its_name(preferred, checkpoint):
    model = preferred(checkpoint)
    before = logits(model)

    @functools.wraps(BertSelfAttention.forward)
    def halve(module, inputs, output):
        return output * 0.5

    model.transformers_model.bert.encoder.layer[-1].attention.output.register_forward_hook(halve)
    assert_as_transformers(model, before)


def test_why_our_own_eight_bits_do_not_run_is_said(checkpoint, monkeypatch):
    model = made(checkpoint, None)
    adapt(model)
    monkeypatch.setattr(
        "xenc.models.quantize.missing_torchao", lambda: "not installed: pip install 'xenc[torchao]'"
    )
    with pytest.raises(
        NotInstalledError, match=r"needs.*; xenc's own kernel cannot be used: somebody's LowRank"
    ):
        model.execution = Execution(quantize="int8", compile_mode=None)
    with pytest.raises(ExecutionError, match="products='xenc' with quantize='int8': somebody's LowRank"):
        model.execution = Execution(quantize="int8", products="xenc", compile_mode=None)
