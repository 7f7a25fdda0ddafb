"""Whether the modules that somebody put into a model take each token by itself, as what they replaced did.

Packed batches are one row of many documents, and buckets pad further than sentence-transformers would. A
module of the architecture's own is known; an adapter around a linear layer is tried on random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import Module
from transformers import PreTrainedModel

from .families import is_packable_class
from .foreign_code import foreign_code_of

_TOKEN_BY_TOKEN: Final = (
    nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Dropout, nn.Identity,
    nn.GELU, nn.Tanh, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Sequential, nn.ModuleList, nn.ModuleDict,
)  # fmt: skip


def mixes_tokens(model: PreTrainedModel) -> str | None:
    """Which module of a model may mix tokens and is not the architecture's own; None if there is none.

    A model that somebody wrote as a whole is its own architecture. In one that is not packable, all modules
    of PyTorch's and transformers' are taken for its own.
    """
    if foreign_code_of(model) is not None:
        return None
    return _found(model, "", type(model).__module__, only_foreign=not is_packable_class(model))


def _found(module: Module, name: str, home: str, *, only_foreign: bool) -> str | None:
    for key, child in module._modules.items():
        if child is None:
            continue
        path = f"{name}.{key}" if name else key
        found = None
        if _is_own(child, home, only_foreign):
            found = _found(child, path, home, only_foreign=only_foreign)
        elif not takes_each_token_by_itself(child):
            found = f"{type(child).__name__} in {path}, which may mix tokens"
        if found is not None:
            return found
    return None


def _is_own(module: Module, home: str, only_foreign: bool) -> bool:
    if only_foreign:
        return foreign_code_of(module) is None
    kind = type(module)
    own = kind.__module__ == home or kind.__module__ == "transformers.activations"
    return own or kind in _TOKEN_BY_TOKEN


@torch.no_grad()
def takes_each_token_by_itself(module: Module) -> bool:
    """Whether the rows of a module's output [1, T, outputs] each depend on their row of [1, T, inputs] alone.

    It is tried once on random numbers, in evaluation mode.
    """
    inputs = (getattr(part, "in_features", None) for part in module.modules())
    width = next((count for count in inputs if isinstance(count, int)), 8)
    weights = (part for part in module.parameters() if part.is_floating_point())
    like = next(weights, torch.zeros(1))
    numbers = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))
    hidden = numbers.to(like.device, like.dtype)
    order = torch.tensor([7, 2, 9, 0, 4, 5, 1])
    try:
        with _evaluating(module):
            together, apart = module(hidden), module(hidden.flatten(0, 1)[order][None])
        if together.shape[:2] != hidden.shape[:2] or apart.shape[:2] != (1, len(order)):
            return False
        expected = together.flatten(0, 1)[order]
        return bool(torch.allclose(apart[0].float(), expected.float(), atol=_steps(like)))
    except Exception:  # it takes something else than hidden states
        return False


def _steps(like: Tensor) -> float:
    return 100 * torch.finfo(like.dtype).eps


@contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
