"""Which layers of a model the products stand for: all of the blocks', each once, and nobody else's."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from correctness_tests import checkpoints
from xenc.kernels.layers import JointAttention, KernelProduct, OneDnnProduct
from xenc.kernels.products import ACTIVATIONS
from xenc.models.quantize import encoder_layers
from xenc.models.replace import replace_products

EVERY = frozenset(ACTIVATIONS)

EXPECTED = {
    "bert": (4, 6, ["gelu"]),
    "roberta": (4, 6, ["gelu"]),
    "camembert": (4, 6, ["gelu"]),
    "xlm-roberta": (4, 6, ["gelu"]),
    "electra": (4, 6, ["gelu"]),
    "electra-small": (8, 12, ["gelu", "gelu"]),
    "distilbert": (4, 6, ["gelu"]),
    "modernbert": (4, 4, []),
    "modernbert-windows": (16, 16, []),
    "deberta-v3": (12, 12, ["gelu", "gelu"]),
    "mpnet": (6, 6, ["gelu"]),
    "qwen2": (14, 14, ["silu", "silu"]),
    "qwen3": (14, 14, ["silu", "silu"]),
}
"""Products, layers, and the activations that products apply."""


def model_of(architecture: str, **changes) -> nn.Module:
    architecture, variation = checkpoints.VARIANTS.get(architecture, (architecture, {}))
    settings = {**checkpoints._SMALL, **checkpoints.ARCHITECTURES[architecture], **variation, **changes}
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(architecture, vocab_size=50, **settings)
    ).eval()


def replaced(model: nn.Module, kind=KernelProduct, activations=EVERY):
    twin = copy.deepcopy(model)
    return twin, replace_products(twin, kind, activations=activations)


@pytest.mark.parametrize("architecture", EXPECTED)
def test_every_layer_of_the_blocks_is_held_exactly_once(architecture):
    model = model_of(architecture)
    twin, made = replaced(model)
    products, layers, fused = EXPECTED[architecture]
    assert len(made) == products
    names = Counter(name for one in made for name in one.layers)
    assert set(names.values()) == {1}
    held = [model.get_submodule(name) for name in names]
    assert len(held) == layers
    assert {id(layer) for layer in held} == {id(layer) for layer in encoder_layers(model)}
    assert encoder_layers(twin) == []
    assert [one.product.activation for one in made if one.product.activation != "none"] == fused
    assert {id(one.product) for one in made} == {
        id(module) for module in twin.modules() if isinstance(module, KernelProduct)
    }


@pytest.mark.parametrize("architecture", EXPECTED)
def test_nothing_outside_of_the_blocks_is_replaced(architecture):
    model = model_of(architecture)
    inside = {id(layer) for layer in encoder_layers(model)}
    outside = [
        name for name, part in model.named_modules() if type(part) is nn.Linear and id(part) not in inside
    ]
    twin, _ = replaced(model)
    assert outside
    assert all(type(twin.get_submodule(name)) is nn.Linear for name in outside)


def test_query_key_and_value_are_one_product_in_this_order():
    for architecture, order in {
        "bert": ("query", "key", "value"),
        "distilbert": ("q_lin", "k_lin", "v_lin"),
    }.items():
        twin, made = replaced(model_of(architecture))
        [joint] = [module for module in twin.modules() if isinstance(module, JointAttention)]
        [one] = [one for one in made if one.product is joint.product]
        assert tuple(name.rpartition(".")[2] for name in one.layers) == order


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_query_key_and_value_stay_three_products_where_that_is_asked_for(architecture):
    model = copy.deepcopy(model_of(architecture))
    made = replace_products(model, KernelProduct, activations=EVERY, joint=False)
    assert [len(one.layers) for one in made] == [1] * 6
    assert not any(isinstance(module, JointAttention) for module in model.modules())


class Mine(nn.Linear):
    """Somebody's own."""


class LowRank(nn.Module):
    """An adapter as PEFT writes them: scaled by what stands in a dict, and it reads its weights' dtype."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.scaling = base, {"default": 2.0}
        self.down = nn.Linear(base.in_features, 4, bias=False)
        self.up = nn.Linear(4, base.out_features, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        low = self.up(self.down(hidden.to(self.down.weight.dtype)))
        return self.base(hidden) + low * self.scaling["default"]


class Twice(nn.Linear):
    """Answers twice as much."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(hidden)


def wrapped(layer: nn.Linear) -> nn.Linear:
    forward = layer.forward
    layer.forward = lambda hidden: forward(hidden) * 2
    return layer


def as_class(kind):
    def change(layer: nn.Linear) -> nn.Linear:
        layer.__class__ = kind
        return layer

    return change


def weight_of_another_class(layer: nn.Linear) -> nn.Linear:
    class Parameter(nn.Parameter):
        pass

    layer.weight = Parameter(layer.weight.detach())
    return layer


FOREIGN = {
    "subclass": as_class(Mine),
    "overridden": as_class(Twice),
    "wrapped": wrapped,
    "weight": weight_of_another_class,
    "odd": lambda layer: nn.Linear(30, layer.out_features),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("place", ["attention.self.key", "attention.output.dense", "intermediate.dense"])
def test_a_layer_that_is_not_as_pytorch_made_it_stays(change, place):
    model = model_of("bert")
    block = model.bert.encoder.layer[0]
    parent, _, name = place.rpartition(".")
    setattr(block.get_submodule(parent), name, change(block.get_submodule(place)))
    twin, made = replaced(model)
    held = {name for one in made for name in one.layers}
    assert f"bert.encoder.layer.0.{place}" not in held
    if place == "attention.self.key":  # those beside it are then layers of their own
        assert "bert.encoder.layer.0.attention.self.query" in held
        assert not any(isinstance(module, JointAttention) for module in twin.modules())
    assert len(held) == 5
    stayed = twin.get_submodule(f"bert.encoder.layer.0.{place}")
    assert type(stayed) is type(model.get_submodule(f"bert.encoder.layer.0.{place}"))


@pytest.mark.parametrize("place", ["attention.self.query", "intermediate.dense"])
def test_an_adapter_stays_around_the_layer_it_adapts(place):
    model = model_of("bert")
    block = model.bert.encoder.layer[0]
    parent, _, name = place.rpartition(".")
    setattr(block.get_submodule(parent), name, LowRank(block.get_submodule(place)))
    twin, made = replaced(model)
    names = {name for one in made for name in one.layers}
    assert isinstance(twin.get_submodule(f"bert.encoder.layer.0.{place}"), LowRank)
    assert f"bert.encoder.layer.0.{place}.base" in names
    assert len(names) == 6 + 2
    if place == "intermediate.dense":  # the activation follows the sum of both
        assert all(one.product.activation == "none" for one in made)


def test_a_foreign_attention_of_the_same_name_stays():
    model = model_of("bert")
    own = type(model.bert.encoder.layer[0].attention.self)
    model.bert.encoder.layer[0].attention.self.__class__ = type("BertSelfAttention", (own,), {})
    twin, made = replaced(model)
    assert not any(isinstance(module, JointAttention) for module in twin.modules())
    assert len(made) == 6


@pytest.mark.parametrize("place", ["attention.self", "intermediate"])
def test_a_module_whose_forward_somebody_wrapped_stays(place):
    model = model_of("bert")
    module = model.bert.encoder.layer[0].get_submodule(place)
    module.forward = lambda *arguments, **named: type(module).forward(module, *arguments, **named)
    _, made = replaced(model)
    assert sum(len(one.layers) for one in made) == 6
    assert len(made) == (6 if place == "attention.self" else 4)
    assert any(one.product.activation != "none" for one in made) == (place != "intermediate")


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("silu", "silu"),
        ("swish", "silu"), ("relu", "none"), ("gelu_fast", "none"), ("quick_gelu", "none"), ("tanh", "none"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [KernelProduct, OneDnnProduct])
def test_an_activation_is_known_by_what_it_computes_and_no_other_is_applied(named, found, kind):
    from transformers.activations import ACT2FN

    model = model_of("bert", hidden_act=named)
    fused = EVERY if kind is KernelProduct else EVERY - {"silu"}
    twin, made = replaced(model, kind, fused)
    [product] = [one.product for one in made if one.layers[0].endswith("intermediate.dense")]
    found = found if found in fused else "none"
    assert product.activation == found
    after = twin.bert.encoder.layer[0].intermediate.intermediate_act_fn
    assert isinstance(after, nn.Identity) == (found != "none")
    product.hold([model.bert.encoder.layer[0].intermediate.dense])
    hidden = torch.randn(5, 32)
    with torch.inference_mode():
        expected = ACT2FN[named](model.bert.encoder.layer[0].intermediate.dense(hidden))
        torch.testing.assert_close(after(product(hidden)), expected, rtol=0, atol=1e-5)


class GELUActivation(nn.Module):
    """Has a known name and computes something else."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * 3


def hooked(activation: nn.Module) -> nn.Module:
    activation.forward = lambda hidden: hidden * 3
    return activation


@pytest.mark.parametrize(
    "change",
    [lambda _: GELUActivation(), hooked, lambda _: torch.nn.functional.gelu],
    ids=["foreign", "wrapped", "function"],
)
def test_an_activation_of_somebody_elses_is_left_alone(change):
    model = model_of("bert")
    intermediate = model.bert.encoder.layer[0].intermediate
    del intermediate._modules["intermediate_act_fn"]
    intermediate.intermediate_act_fn = change(nn.GELU())
    _, made = replaced(model)
    assert all(one.product.activation == "none" for one in made)


def test_the_original_keeps_its_modules():
    model = model_of("bert")
    before = list(map(id, model.modules()))
    replaced(model)
    assert list(map(id, model.modules())) == before
