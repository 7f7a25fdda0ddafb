"""Whether a model is what it was: asked by whatever keeps something that was made from it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from torch import Tensor
from transformers import PreTrainedModel

_PLAIN: Final = (bool, int, float, str, type(None))


def weights_version(model: PreTrainedModel) -> tuple[object, ...]:
    """Changes whenever a weight or buffer is replaced or written to, unless through `.data`."""
    return tuple(
        (tensor.data_ptr(), None if tensor.is_inference() else tensor._version) for tensor in _tensors(model)
    )


def sum_of_weights(model: PreTrainedModel) -> float:
    """Changes with any weight or buffer, at the cost of reading them all."""
    return sum(float(tensor.detach().double().sum()) for tensor in _tensors(model))


def _tensors(model: PreTrainedModel) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def settings_of(model: PreTrainedModel) -> tuple[object, ...]:
    """Changes whenever a module's plain attribute is set (an epsilon, an active adapter), or a hook."""
    return tuple(
        (
            *((name, _frozen(value)) for name, value in vars(module).items() if _is_setting(name, value)),
            *module._forward_pre_hooks,
            *module._forward_hooks,
        )
        for module in model.modules()
    )


def has_hooks(model: PreTrainedModel) -> bool:
    """Whether any module's forward pass runs somebody's own code before or after it."""
    return any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def _is_setting(name: str, value: Any) -> bool:
    if name == "training":
        return False
    return isinstance(value, _PLAIN) or (
        isinstance(value, (list, tuple)) and all(isinstance(item, _PLAIN) for item in value)
    )


def _frozen(value: Any) -> object:
    return tuple(value) if isinstance(value, list) else value
