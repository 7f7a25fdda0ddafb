"""Detects changes of a model's weights and settings after something was made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Module, functional
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from transformers import PreTrainedModel

from ..kernels.library import library

_PLAIN: Final = (bool, int, float, str, type(None))
_LINE: Final = 32
"""Words of two bytes in a cache line."""

_OF_EVERY_MODULE: Final = frozenset(vars(Module()))


def versions_of(modules: Iterable[Module]) -> tuple[object, ...]:
    """Changes if a weight or buffer of these modules is replaced or written to, except through `.data`."""
    return tuple(
        (tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
        for module in modules
        for tensors in (module._parameters, module._buffers)
        for tensor in tensors.values()
        if tensor is not None
    )


def settings_of(modules: Iterable[Module]) -> tuple[object, ...]:
    """Changes if a module gets another attribute (an epsilon, an active adapter).

    What is written into a tensor or a dict does not count.
    """
    return tuple(
        (name, _frozen(value)) for module in modules for name, value in vars(module).items() if _is_own(name)
    )


def shareable(model: PreTrainedModel) -> dict[int, Any]:
    """Attributes that a copy of a model can share with it, besides weights, by their id.

    Tensors, and containers of tensors and plain values. Not what may refer to the model (a wrapped forward),
    nor the configuration, since the copy uses another attention implementation.
    """
    own = [value for module in model.modules() for name, value in vars(module).items() if _is_own(name)]
    return {id(value): value for value in own if _is_data(value)}


def _is_own(name: str) -> bool:
    """Whether an attribute is not one that every module has."""
    return name not in _OF_EVERY_MODULE and name != "_output_capturing_hooks_installed"


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_data, value))
    return isinstance(value, (*_PLAIN, Tensor))


def _frozen(value: Any) -> object:
    """A hashable copy of plain values, lists and tuples; the id of any other object."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    return id(value)


class Contents:
    """Detects writes that change neither address nor version: through `.data`, or by a fused optimiser.

    Reading all bytes for every batch would be slow. Each check reads another of `SHARES` shares of the cache
    lines, and at least one line of every weight. The next check notices a weight overwritten as a whole, and
    SHARES checks notice a single number. Weights on a GPU are not checked, as reading them would wait for it.

    Args:
        weights: returns the weights to check.
    """

    SHARES: Final = 256

    def __init__(self, weights: Callable[[], list[Tensor]]) -> None:
        self._weights, self._looks = weights, 0
        self._remembered: list[int] | None = None

    def remember(self) -> None:
        """Take the present contents as unchanged."""
        self._remembered = self._look(-1)

    def changed(self) -> bool:
        """Whether the next share differs from what is remembered."""
        if self._remembered is None:
            return False
        self._looks += 1
        share = self._looks % self.SHARES
        return self._look(share) != [self._remembered[share]]

    def _look(self, share: int) -> list[int] | None:
        weights = self._weights()
        if any(part.device.type != "cpu" for part in weights):
            return None
        operators = library().operators
        if operators is None:
            return _fingerprints(weights, self.SHARES, share)
        looked: list[int] = operators.fingerprints(weights, self.SHARES, share).tolist()
        return looked


def _fingerprints(weights: list[Tensor], shares: int, only: int) -> list[int]:
    """As the operator of the C++ library, by PyTorch: one number for each share of the lines, or for one."""
    found = torch.zeros(shares if only < 0 else 1, dtype=torch.int64)
    for number, part in enumerate(weights, start=1):
        words = part.contiguous().view(-1).view(torch.int16)
        lines = functional.pad(words, (0, -len(words) % _LINE)).view(-1, _LINE)
        if len(lines) < shares:  # so that each share has a line
            lines = lines[torch.arange(shares) % len(lines)]
        looked = lines if only < 0 else lines[only::shares]
        sums = (looked.long() * torch.arange(1, _LINE + 1)).sum(1)
        found += number * functional.pad(sums, (0, -len(sums) % len(found))).view(-1, len(found)).sum(0)
    numbers: list[int] = found.tolist()
    return numbers


class Steps:
    """Counts the steps of optimisers that change some modules' weights: a fused one shows in no version.

    Args:
        modules: whose weights.
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        self._modules, self.count = modules, 0
        self.end = register_optimizer_step_post_hook(self._stepped).remove
        """Stop counting."""

    def _stepped(self, optimiser: Optimizer, *_: object) -> None:
        ours = {id(part) for module in self._modules for part in module._parameters.values()}
        groups = (group["params"] for group in optimiser.param_groups)
        self.count += any(id(part) in ours for group in groups for part in group)
