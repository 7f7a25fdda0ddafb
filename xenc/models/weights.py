"""Detects changes of a model's weights and settings after something was made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Module, functional
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from transformers import PretrainedConfig, PreTrainedModel

from ..kernels.library import library

_PLAIN: Final = (bool, int, float, str, type(None))
_LINE: Final = 32
"""Words of two bytes in a cache line."""

_OF_EVERY_MODULE: Final = frozenset(vars(Module()))
_LENT: Final = ("_attn_implementation_internal", "_output_capturing_hooks_installed")
"""What a forward pass itself sets: xenc in a configuration (see `Attention`), transformers in a model."""


def versions_of(modules: Iterable[Module]) -> tuple[object, ...]:
    """Changes if a weight or buffer of these modules is replaced or written to, except through `.data`."""
    return tuple(
        (tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
        for module in modules
        for tensors in (module._parameters, module._buffers)
        for tensor in tensors.values()
        if tensor is not None
    )


def settings_of(holders: Iterable[Module | PretrainedConfig]) -> tuple[object, ...]:
    """Changes if a module or a configuration gets another attribute (an epsilon, a window).

    What is written into a tensor or a dict does not count.
    """
    return tuple(
        (name, _frozen(value)) for holder in holders for name, value in vars(holder).items() if is_own(name)
    )


def shareable(model: PreTrainedModel) -> dict[int, Any]:
    """Attributes that a copy of a model can share with it, besides weights, by their id.

    Tensors, and containers of tensors and plain values. Not what may refer to the model (a wrapped forward),
    nor the configuration, since the copy uses another attention implementation.
    """
    own = [value for module in model.modules() for name, value in vars(module).items() if is_own(name)]
    return {id(value): value for value in own if _is_data(value)}


def is_own(name: str) -> bool:
    """Whether an attribute is not one that every module has, nor one that a forward pass sets."""
    return name not in _OF_EVERY_MODULE and name not in _LENT


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
    SHARES checks notice a single number. Reading a GPU's memory waits for the GPU, so weights there are
    checked once for each request instead of each batch.

    Args:
        weights: returns the weights to check, all on one device.

    Attributes:
        asked: whether a request has come since the last check; whoever takes requests sets it.
    """

    SHARES: Final = 256

    def __init__(self, weights: Callable[[], list[Tensor]]) -> None:
        self._weights, self._looks = weights, 0
        self._remembered: list[int] = []
        self.asked = self._waits = False

    def remember(self) -> None:
        """Take the present contents as unchanged."""
        weights = self._weights()
        self._waits = not _on_cpu(weights)
        self._remembered = _look(weights, self.SHARES)

    def changed(self) -> bool:
        """Whether the next share differs from what is remembered."""
        asked, self.asked = self.asked, False
        if self._waits and not asked:
            return False
        self._looks += 1
        share = self._looks % self.SHARES
        return _look(self._weights(), self.SHARES, share) != [self._remembered[share]]


def _on_cpu(weights: list[Tensor]) -> bool:
    return all(part.device.type == "cpu" for part in weights)


def _look(weights: list[Tensor], shares: int, only: int = -1) -> list[int]:
    """A number for each share of the lines, or for one, that changes with their contents."""
    operators = library().operators
    if operators is None or not _on_cpu(weights):
        return _fingerprints(weights, range(shares) if only < 0 else (only,), shares)
    looked: list[int] = operators.fingerprints(weights, shares, only).tolist()
    return looked


def _fingerprints(weights: list[Tensor], asked: Iterable[int], shares: int) -> list[int]:
    """As the operator of the C++ library, by PyTorch; one wait for the device."""
    every = [_lines(part) for part in weights]
    found = [_fingerprint(torch.cat([_share(lines, share, shares) for lines in every])) for share in asked]
    numbers: list[int] = torch.stack(found).tolist()
    return numbers


def _lines(weight: Tensor) -> Tensor:
    """[lines, _LINE] words of a weight, filled up with zeros."""
    words = weight.contiguous().view(-1).view(torch.int16)
    missing = -len(words) % _LINE
    return (functional.pad(words, (0, missing)) if missing else words).view(-1, _LINE)


def _share(lines: Tensor, share: int, shares: int) -> Tensor:
    """Every line of a share, at least one."""
    return lines[share::shares] if len(lines) > share else lines[share % len(lines)][None]


def _fingerprint(lines: Tensor) -> Tensor:
    """A sum of all words, each times its line's number and its own."""
    rows, columns = (torch.arange(1, size + 1, device=lines.device) for size in lines.shape)
    return ((lines.long() * columns).sum(1) * rows).sum()


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
