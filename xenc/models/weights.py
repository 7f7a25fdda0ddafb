"""Detects changes of a model's weights and settings after something was made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import is_
from typing import Any, Final

from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel

from ..kernels.library import library
from .foreign_code import foreign_hooks, global_hooks

_PLAIN: Final = (bool, int, float, str, type(None))
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


def settings_of(model: PreTrainedModel) -> tuple[object, ...]:
    """Changes if a module gets another attribute (an epsilon, an active adapter), class, `forward` or hook.

    Transformers' own hooks do not count, nor does what is written into a tensor or a dict.
    """
    return global_hooks(), tuple(
        (
            type(module),
            type(module).forward,
            *((name, _frozen(value)) for name, value in vars(module).items() if _is_own(name)),
            *(number for number, _ in foreign_hooks(module)),
        )
        for module in model.modules()
    )


class Settings:
    """Whether `settings_of` a model changed, checked for every request: first by the identity of objects."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._before = model, settings_of(model)
        self._remember()

    def unchanged(self) -> bool:
        """Whether all settings equal those at the start."""
        now = self._objects()
        if len(now) == len(self._seen) and all(map(is_, now, self._seen)):
            return True
        if settings_of(self._model) != self._before:
            return False
        self._remember()
        return True

    def _remember(self) -> None:
        self._modules = tuple(self._model.modules())
        values = (value for module in self._modules for value in vars(module).values())
        self._lists = [value for value in values if isinstance(value, list)]
        self._seen = self._objects()

    def _objects(self) -> list[object]:
        found: list[object] = [*global_hooks()]
        for module in self._modules:
            kind, own = type(module), vars(module)
            found += (kind, kind.forward, *own, *own.values())
            found += (*module._forward_pre_hooks, *module._forward_hooks)
        for each in self._lists:
            found += each
        return found


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
    SHARES checks notice a single number. Weights on a GPU, or without the C++ library, are not checked.

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
            return None
        looked: list[int] = operators.fingerprints(weights, self.SHARES, share).tolist()
        return looked
