"""Whatever is done to a model's weights or modules, the next score by the kernels is the oracle's of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import xenc
from correctness_tests.kernels.test_twin import PAIRS, logits, made
from xenc import watch_compiles
from xenc.kernels.library import Library
from xenc.models import weights
from xenc.models.kernel_twin import KernelTwin
from xenc.models.weights import Contents

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture(params=["eager", "compiled"])
def model(request, checkpoint):
    settings = {"compile_mode": "default", "token_budgets": (128,)} if request.param == "compiled" else {}
    with made(checkpoint, "xenc", **settings) as model:
        model.warmup()
        yield model


def expected(model: xenc.CrossEncoder) -> np.ndarray:
    """What transformers' own forward pass, eager and one pair at a time, says of the model as it is."""
    own, tokenizer = model.transformers_model, model.tokenizer
    before = own.config._attn_implementation
    own.set_attn_implementation("eager")
    with torch.inference_mode():
        rows = [
            own(**tokenizer([q], [d], truncation="longest_first", max_length=64, return_tensors="pt")).logits
            for q, d in PAIRS
        ]
    own.set_attn_implementation(before)
    return torch.cat(rows).float().squeeze(-1).numpy()


def dense(model: nn.Module) -> nn.Linear:
    return model.bert.encoder.layer[0].output.dense


def in_place(model):
    with torch.no_grad():
        dense(model).weight.mul_(-2)


def query_in_place(model):
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.self.query.weight.mul_(-4)


def data_assigned(model):
    dense(model).weight.data = dense(model).weight.detach() * -2


def data_written(model):
    dense(model).weight.data.mul_(-2)


def parameter_replaced(model):
    dense(model).weight = nn.Parameter(dense(model).weight.detach() * -2)


def bias_in_place(model):
    with torch.no_grad():
        dense(model).bias.add_(torch.linspace(-3, 3, 128))


def state_loaded(model):
    model.load_state_dict({name: part * 1.3 for name, part in model.state_dict().items()})


def state_assigned(model):
    state = {name: part * 1.3 for name, part in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def outside(model):
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight.mul_(-2)


def query_data_written(model):
    model.bert.encoder.layer[0].attention.self.query.weight.data.mul_(-4)


def norm_data_written(model):
    model.bert.encoder.layer[0].output.LayerNorm.weight.data.mul_(-2)


def optimised(**settings):
    def step(model):
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, **settings)
        model.bert.encoder.requires_grad_(True)
        model(input_ids=torch.arange(20)[None]).logits.sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


CHANGES = {
    "in place": in_place, "query in place": query_in_place, "data assigned": data_assigned,
    "data written": data_written, "parameter replaced": parameter_replaced, "bias in place": bias_in_place,
    "state loaded": state_loaded, "state assigned": state_assigned, "outside of the blocks": outside,
    "a norm's data written": norm_data_written, "AdamW": optimised(), "AdamW fused": optimised(fused=True),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_weights_show_in_the_next_score_and_compile_nothing(model, change):
    before = logits(model)
    np.testing.assert_allclose(before, expected(model), rtol=0, atol=1e-4)
    change(model.transformers_model)
    with watch_compiles() as watch:
        after = logits(model)
    assert watch.report.clean, watch.report.describe()
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(after, expected(model), rtol=1e-4, atol=1e-4)
    assert isinstance(model.pipeline._twin, KernelTwin)


def test_a_bias_that_is_gone_is_gone_from_the_next_score(checkpoint):
    model = made(checkpoint, "xenc")
    logits(model)
    bias_in_place(model.transformers_model)
    model.transformers_model.bert.encoder.layer[0].intermediate.dense.bias = None
    np.testing.assert_allclose(logits(model), expected(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("built", [True, False], ids=["in C++", "by PyTorch"])
def test_small_weights_that_are_written_as_a_whole_show_at_once_however_many_looks_there_were(
    monkeypatch, built
):
    if not built:
        monkeypatch.setattr("xenc.models.weights.library", lambda: Library(missing="no compiler"))
    parts = [torch.randn(300, 64), torch.randn(384), torch.randn(3)]
    contents = Contents(lambda: parts)
    contents.remember()
    for looks in range(Contents.SHARES):
        assert not contents.changed(), looks
        for weight in parts:
            weight.data += 1
            assert contents.changed(), (looks, weight.shape)
            weight.data -= 1
            contents.remember()


def test_where_reading_waits_contents_are_read_once_for_a_request_and_writes_show_in_the_next(
    checkpoint, monkeypatch
):
    """As on a GPU; here the CPU plays it."""
    reads, look = [], weights._look
    monkeypatch.setattr(weights, "_look", lambda *args: reads.append(args[2:]) or look(*args))
    monkeypatch.setattr(weights, "_on_cpu", lambda _: False)
    model = made(checkpoint, "xenc", token_budgets=(64,))
    model.predict(PAIRS)
    for change in (data_written, query_data_written):
        reads.clear()
        change(model.transformers_model)
        after = logits(model)
        assert model.last_report.batches > 1
        np.testing.assert_allclose(after, expected(model), rtol=1e-4, atol=1e-4)
        assert [len(shares) for shares in reads] == [1, 0], "one share, and all of them once it has changed"


@pytest.mark.parametrize("place", [(0, 0), (127, 255), (64, 17)])
def test_one_number_written_through_data_shows_within_as_many_batches_as_there_are_shares(checkpoint, place):
    model = made(checkpoint, "xenc")
    before = logits(model)[:1]
    dense(model.transformers_model).weight.data[place] += 1000
    for _ in range(Contents.SHARES):
        after = logits(model, PAIRS[:1])
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, expected(model)[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("built", [True, False], ids=["in C++", "by PyTorch"])
def test_contents_notice_a_change_of_any_number_within_a_round_and_no_other(monkeypatch, built):
    if not built:
        monkeypatch.setattr("xenc.models.weights.library", lambda: Library(missing="no compiler"))
    parts = [torch.randn(37, 50), torch.randn(3), torch.randn(700).bfloat16(), torch.randn(200, 100)]
    contents = Contents(lambda: parts)
    contents.remember()
    assert not any(contents.changed() for _ in range(2 * Contents.SHARES))
    for weight in parts:
        for at in {0, 1, weight.numel() // 2, weight.numel() - 1}:
            flat = weight.data.view(-1)
            before = flat[at].clone()
            flat[at] += 1
            assert any(contents.changed() for _ in range(Contents.SHARES))
            flat[at] = before
            assert not any(contents.changed() for _ in range(Contents.SHARES))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_model_in_another_dtype_is_followed_there_and_back(preferred, checkpoint, dtype):
    model = preferred(checkpoint)
    before = logits(model)
    model.to(dtype)
    assert model.transformers_model.dtype == dtype
    np.testing.assert_allclose(logits(model), before, rtol=0, atol=0.15)
    model.to(torch.float32)
    np.testing.assert_allclose(logits(model), expected(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pre", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("place", ["", ".intermediate.dense", ".attention.self", ".output"])
def test_a_hook_set_later_runs_and_is_gone_when_removed(preferred, checkpoint, pre, place):
    model = preferred(checkpoint)
    before, ran = logits(model), []
    module = model.transformers_model.get_submodule(f"bert.encoder.layer.0{place}")
    register = module.register_forward_pre_hook if pre else module.register_forward_hook
    handle = register(lambda *_: ran.append(1))
    np.testing.assert_allclose(logits(model), before, rtol=0, atol=1e-4)
    assert ran
    handle.remove()
    count = len(ran)
    np.testing.assert_array_equal(logits(model), before)
    assert len(ran) == count


class Negative(nn.Linear):
    """Answers what another would not."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return -super().forward(hidden)


def hook(block: nn.Module) -> None:
    block.output.dense.register_forward_hook(lambda module, inputs, out: -out)


def wrap(block: nn.Module) -> None:
    forward = block.output.dense.forward
    block.output.dense.forward = lambda hidden: -forward(hidden)


def change_class(block: nn.Module) -> None:
    block.output.dense.__class__ = Negative


def replace_activation(block: nn.Module) -> None:
    block.intermediate.intermediate_act_fn = nn.ReLU()


def replace_layer(block: nn.Module) -> None:
    block.output.dense = copy.deepcopy(block.output.dense)
    block.output.dense.weight.data.mul_(-2)


@pytest.mark.parametrize("change", [hook, wrap, change_class, replace_activation, replace_layer])
def test_code_and_modules_that_are_changed_later_show_in_the_next_score(preferred, checkpoint, change):
    model = preferred(checkpoint)
    before = logits(model)
    change(model.transformers_model.bert.encoder.layer[0])
    after = logits(model)
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(after, expected(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("when", ["before the first score", "after it"])
def test_hidden_states_asked_for_leave_the_twin_as_it_is(checkpoint, when):
    """Transformers' hooks that collect them stay behind, and a compiled graph could not run them."""
    with made(checkpoint, "xenc", compile_mode="default", token_budgets=(128,)) as model:
        if when == "after it":
            before = logits(model)
        model.transformers_model(input_ids=torch.arange(20)[None], output_hidden_states=True)
        if when == "before the first score":
            before = logits(model)
        np.testing.assert_allclose(before, expected(model), rtol=0, atol=1e-4)
        with watch_compiles() as watch:
            np.testing.assert_array_equal(logits(model), before)
        assert watch.report.clean, watch.report.describe()
        model.transformers_model.half().float()
        np.testing.assert_allclose(logits(model), expected(model), rtol=0, atol=1e-3)
