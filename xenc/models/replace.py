"""Which modules of a model a product of another kind can stand for, and which layers it then holds.

By class, as transformers made it, in a model where nobody else's code runs; see `foreign_code`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from torch import nn
from torch.nn import Linear, Module, ModuleList, Parameter
from transformers import PreTrainedModel

from ..kernels.layers import JointAttention, Product

JOINT: Final = {
    **{
        f"{family}SelfAttention": ("query", "key", "value", None)
        for family in ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra")
    },
    "DistilBertSelfAttention": ("q_lin", "k_lin", "v_lin", "out_lin"),
}
"""Class -> its query, key and value, and its own output projection."""

ACTIVATED: Final = {
    **{
        f"{family}Intermediate": ("dense", "intermediate_act_fn")
        for family in ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra")
    },
    "FFN": ("lin1", "activation"),
    "Qwen2MLP": ("gate_proj", "act_fn"),
    "Qwen3MLP": ("gate_proj", "act_fn"),
}
"""Class -> a layer, and the activation that follows it and nothing else."""

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


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """One product, and the layers whose weights it holds.

    Attributes:
        product: the new module.
        layers: the names of the layers in the model.
    """

    product: Product
    layers: tuple[str, ...]


def replace_products(
    model: PreTrainedModel, make: Callable[[str], Product], *, activations: frozenset[str],
    apart: Module | None = None,
) -> list[Replacement]:  # fmt: skip
    """Put products in the place of the linear layers in a model's repeated blocks.

    Args:
        model: is changed: modules are replaced, an activation that a product applies becomes the identity.
        make: activation -> a product that holds nothing yet.
        activations: those that `make` can be asked for.
        apart: an attention whose query is of fewer tokens than its key and value: three products, not one.

    Returns:
        The products; empty if there is no layer to replace.
    """
    how = _How(make, activations, apart)
    return [one for name, block in list(_blocks(model)) for one in _replace_below(name, block, how)]


class _How(NamedTuple):
    """What `replace_products` was asked for."""

    make: Callable[[str], Product]
    activations: frozenset[str]
    apart: Module | None


def _blocks(model: PreTrainedModel) -> Iterator[tuple[str, Module]]:
    """The repeated blocks of the base model, outermost alone, with their names."""
    base: Any = model.base_model
    prefix = next(name for name, module in model.named_modules() if module is base)
    lists = {name: module for name, module in base.named_modules(prefix=prefix) if type(module) is ModuleList}
    return (
        (name, block)
        for name, block in lists.items()
        if not any(name.startswith(f"{outer}.") for outer in lists)
    )


def _replace_below(path: str, module: Module, how: _How) -> list[Replacement]:
    made: list[Replacement] = []
    for name, child in list(module.named_children()):
        below = f"{path}.{name}" if path else name
        if child is not how.apart and (parts := _joint_parts(child)) is not None:
            made += _replace_attention(below, module, name, parts, how.make)
        elif _is_plain(child):
            product = how.make(_follows(module, name, how.activations))
            setattr(module, name, product)
            made.append(Replacement(product=product, layers=(below,)))
        else:
            made += _replace_below(below, child, how)
    return made


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
    product = Replacement(product=make("none"), layers=tuple(f"{path}.{part}" for part in joint))
    made = [product]
    if output is not None:
        made.append(Replacement(product=make("none"), layers=(f"{path}.{output}",)))
    source = getattr(parent, name)
    setattr(parent, name, JointAttention(source, product.product, made[1].product if output else None))
    return made


def _follows(module: Module, layer: str, activations: frozenset[str]) -> str:
    """The activation that a layer's product can apply, which the module then no longer does."""
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
    return _ACTIVATIONS.get(type(function).__name__, "none") if known else "none"


def _is_plain(module: Module) -> bool:
    """A linear layer as PyTorch makes it, with weights of its own."""
    if type(module) is not Linear or type(module.weight) is not Parameter or "forward" in vars(module):
        return False
    return module.weight.dim() == 2 and module.weight.shape[1] % MOST_DEPTH == 0


def _is_transformers_own(module: Module) -> bool:
    own = type(module).__module__.startswith("transformers.models.")
    return own and "forward" not in vars(module)
