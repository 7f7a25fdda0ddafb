"""Replaces the linear layers of an encoder's blocks by products, as fused as the surrounding modules allow.

Modules are known by their class, as transformers wrote it, in a model that runs no foreign code; see
`foreign_code`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from torch import nn
from torch.nn import Linear, Module, ModuleList, Parameter, functional
from transformers import PreTrainedModel

from ..kernels.layers import JointAttention, Product

_LIKE_BERT: Final = ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra")

JOINT: Final = {
    **{f"{family}SelfAttention": ("query", "key", "value", None) for family in _LIKE_BERT},
    "DistilBertSelfAttention": ("q_lin", "k_lin", "v_lin", "out_lin"),
}
"""Class -> its query, key and value layers, and its output projection if it has one."""

ACTIVATED: Final = {
    **{
        f"{family}Intermediate": ("dense", "intermediate_act_fn")
        for family in (*_LIKE_BERT, "DebertaV2", "MPNet")
    },
    "FFN": ("lin1", "activation"),
    "Qwen2MLP": ("gate_proj", "act_fn"),
    "Qwen3MLP": ("gate_proj", "act_fn"),
}
"""Class -> a layer, and the activation that is applied directly to its output."""

MOST_DEPTH: Final = 4
"""Inputs that one instruction may multiply at once; see cpp/product.h."""

_ACTIVATIONS: Final = {
    "GELUActivation": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "SiLUActivation": "silu",
    "SiLU": "silu",
}


class Replacement(NamedTuple):
    """A product, and the names of the layers in the model whose weights it holds."""

    product: Product
    layers: tuple[str, ...]


def replace_products(
    model: PreTrainedModel, make: Callable[[str], Product], *, activations: frozenset[str],
    apart: Module | None = None, joint: bool = True,
) -> list[Replacement]:  # fmt: skip
    """Replace the linear layers in a model's repeated blocks by products.

    Args:
        model: is changed: modules are replaced, an activation that a product applies becomes the identity.
        make: activation -> a product without weights yet.
        activations: those that products can apply.
        apart: an attention module whose query, key and value stay three products.
        joint: whether those of all others become one.

    Returns:
        The products; empty if there is no layer to replace.
    """
    made: list[Replacement] = []
    joined: set[Module] = set()
    for path, parent in _modules_of_blocks(model).items():
        if parent in joined:
            continue
        for name, child in list(parent.named_children()):
            if joint and child is not apart and (parts := _joint_parts(child)) is not None:
                made += _replace_attention(f"{path}.{name}", parent, name, parts, make)
                joined.add(child)
            elif _is_plain(child):
                product = make(_follows(parent, name, activations))
                setattr(parent, name, product)
                made.append(Replacement(product, (f"{path}.{name}",)))
    return made


def _modules_of_blocks(model: PreTrainedModel) -> dict[str, Module]:
    """The modules of the base model's repeated blocks by their names in the model, parents first."""
    base: Any = model.base_model
    prefix = next(name for name, module in model.named_modules() if module is base)
    lists = [(name, part) for name, part in base.named_modules(prefix=prefix) if type(part) is ModuleList]
    return {path: part for name, blocks in lists for path, part in blocks.named_modules(prefix=name)}


def _joint_parts(module: Module) -> tuple[str, str, str, str | None] | None:
    parts = JOINT.get(type(module).__name__) if _is_transformers_own(module) else None
    if parts is None or not all(_is_plain(getattr(module, part)) for part in parts if part is not None):
        return None
    return parts


def _replace_attention(
    path: str, parent: Module, name: str, parts: tuple[str, str, str, str | None],
    make: Callable[[str], Product],
) -> list[Replacement]:  # fmt: skip
    *joint, output = parts
    made = [Replacement(make("none"), tuple(f"{path}.{part}" for part in joint))]
    if output is not None:
        made.append(Replacement(make("none"), (f"{path}.{output}",)))
    products = [one.product for one in made]
    attention = JointAttention(getattr(parent, name), products[0], products[1] if output else None)
    setattr(parent, name, attention)
    return made


def _follows(module: Module, layer: str, activations: frozenset[str]) -> str:
    """The activation that a layer's product applies from now on, in place of the module."""
    kind = type(module).__name__ if _is_transformers_own(module) else ""
    first, then = ACTIVATED.get(kind, ("", ""))
    if layer != first:
        return "none"
    activation = _activation(getattr(module, then))
    if activation == "none" or activation not in activations:
        return "none"
    setattr(module, then, nn.Identity())
    return activation


def _activation(function: Any) -> str:
    if not isinstance(function, Module) or "forward" in vars(function):
        return "none"
    if type(function) is nn.GELU:
        return "gelu" if function.approximate == "none" else "gelu_tanh"
    known = type(function).__module__.startswith(("transformers.activations", "torch.nn.modules."))
    name = _ACTIVATIONS.get(type(function).__name__, "none") if known else "none"
    return name if _calls(function, name) else "none"


def _calls(module: Module, activation: str) -> bool:
    """Whether the function that some activation modules keep is still the one that they were made with."""
    function = vars(module).get("act")
    options = {"approximate": "tanh"} if activation == "gelu_tanh" else {}
    same = getattr(function, "func", function) is functional.gelu
    return function is None or (same and getattr(function, "keywords", {}) == options)


def _is_plain(module: Module) -> bool:
    """Whether a module is PyTorch's own linear layer, with a plain weight that the kernels can read."""
    if type(module) is not Linear or type(module.weight) is not Parameter or "forward" in vars(module):
        return False
    return module.weight.dim() == 2 and module.weight.shape[1] % MOST_DEPTH == 0


def _is_transformers_own(module: Module) -> bool:
    own = type(module).__module__.startswith("transformers.models.")
    return own and "forward" not in vars(module)
