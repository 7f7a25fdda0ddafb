"""Whether a model is what it was: asked by whatever keeps something that was made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Self

from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel

from ..kernels.library import library
from .foreign_code import foreign_hooks, global_hooks

_PLAIN: Final = (bool, int, float, str, type(None))


def versions_of(modules: Iterable[Module]) -> tuple[object, ...]:
    """Changes whenever a weight or buffer of the modules themselves is replaced or written to, unless through
    `.data`.
    """
    return tuple(
        (tensor.data_ptr(), None if tensor.is_inference() else tensor._version)
        for module in modules
        for tensors in (module._parameters, module._buffers)
        for tensor in tensors.values()
        if tensor is not None
    )


def settings_of(model: PreTrainedModel) -> tuple[object, ...]:
    """Changes whenever a module's attribute is set (an epsilon, an active adapter), its class or that class's
    `forward`, or a hook that is not transformers' own; not with what is written into a tensor or a dict.
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
    """Whether a model's modules are set as they were, asked for every request; see `settings_of`.

    An attribute that is the same object still is not looked at again.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._before = model, settings_of(model)
        self._seen, self._global = [_Seen.of(module) for module in model.modules()], global_hooks()

    def unchanged(self) -> bool:
        """Whether nothing was set since, or to what it was."""
        if self._global == global_hooks() and all(map(_Seen.holds, self._seen)):
            return True
        if settings_of(self._model) != self._before:
            return False
        self._seen = [_Seen.of(module) for module in self._model.modules()]
        return True


class _Seen(NamedTuple):
    """What a module's attributes are, by identity; lists by their items, which may be set in place."""

    module: Module
    kind: type
    forward: Any
    attributes: tuple[tuple[str, object], ...]
    lists: tuple[tuple[list[Any], tuple[Any, ...]], ...]
    hooks: tuple[int, ...]

    @classmethod
    def of(cls, module: Module) -> Self:
        own = vars(module)
        lists = tuple((value, tuple(value)) for value in own.values() if isinstance(value, list))
        kind = type(module)
        return cls(module, kind, kind.forward, tuple(own.items()), lists, _hook_numbers(module))

    def holds(self) -> bool:
        own = vars(self.module)
        return (
            type(self.module) is self.kind
            and self.kind.forward is self.forward
            and len(own) == len(self.attributes)
            and all(own.get(name, _ABSENT) is value for name, value in self.attributes)
            and all(tuple(now) == before for now, before in self.lists)
            and _hook_numbers(self.module) == self.hooks
        )


_ABSENT: Final = object()


def _hook_numbers(module: Module) -> tuple[int, ...]:
    return (*module._forward_pre_hooks, *module._forward_hooks)


def shareable(model: PreTrainedModel) -> dict[int, Any]:
    """What a copy of a model can have in common with it, beside weights: attributes of modules by their id.

    Tensors, and containers of tensors and plain values: not what may refer to the model itself (a wrapped
    forward), nor its configuration, since the copy attends in another way.
    """
    own = [value for module in model.modules() for name, value in vars(module).items() if _is_own(name)]
    return {id(value): value for value in own if _is_data(value)}


_OF_EVERY_MODULE: Final = frozenset(vars(Module()))


def _is_own(name: str) -> bool:
    """Whether an attribute is not what every module has."""
    return name not in _OF_EVERY_MODULE and name != "_output_capturing_hooks_installed"


def _is_data(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_data, value))
    return isinstance(value, (*_PLAIN, Tensor))


def _frozen(value: Any) -> object:
    """Something equal if the value is; of what is not plain only whether it is the same object."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    return id(value)


class Contents:
    """What is in a few weights: whether a change shows that left no other trace.

    A write through `.data`, or by a fused optimiser, moves neither address nor version. Looking at all bytes
    for every batch would cost more than it is worth, so each look is at another share of the cache lines, and
    at one line at least of every weight: one that is written as a whole shows at once, a single number within
    SHARES looks. Without the C++ library nothing is looked at.

    Args:
        weights: what to look at, asked for anew each time.
    """

    SHARES: Final = 256

    def __init__(self, weights: Callable[[], list[Tensor]]) -> None:
        self._weights, self._looks = weights, 0
        self._remembered: list[int] | None = None

    def remember(self) -> None:
        """Take what the weights hold now for what they should."""
        self._remembered = self._look(-1)

    def changed(self) -> bool:
        """Whether a look at the next share finds something else."""
        if self._remembered is None:
            return False
        self._looks += 1
        share = self._looks % self.SHARES
        return self._look(share) != [self._remembered[share]]

    def _look(self, share: int) -> list[int] | None:
        operators = library().operators
        weights = self._weights()
        if operators is None or any(part.device.type != "cpu" for part in weights):
            return None
        looked: list[int] = operators.fingerprints(weights, self.SHARES, share).tolist()
        return looked
