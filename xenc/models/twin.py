"""A twin of a model: the same weights, some products computed in another way; the model itself is unchanged.

The twin shares the model's parameters, buffers and data attributes. Only the products hold tensors of their
own, made from the model's weights, and made again when those change.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import ExecutionError
from .weights import Contents, Steps, shareable, versions_of


class Twin(ABC):
    """A second model that follows every change of the original's weights.

    Args:
        original: is not changed.

    Raises:
        ExecutionError: it has an attribute that cannot be copied.

    Attributes:
        model: the twin, in evaluation mode.
    """

    def __init__(self, original: PreTrainedModel) -> None:
        self._original = original
        self._modules = tuple(original.modules())
        self.model = copy_sharing_weights(original)
        self._held = self._replace()
        self._layers = [original.get_submodule(name) for name in sorted(self._held)]
        self._kinds = self._kinds_held()
        self._contents = Contents(self._weights_held)
        self._steps = Steps(self._modules)
        finalize(self, self._steps.end)
        self._version: tuple[object, ...] = ()
        self.follow(anyway=True)

    @abstractmethod
    def _replace(self) -> frozenset[str]:
        """Change the twin's modules; return the names of the layers whose weights the products hold."""

    @abstractmethod
    def _hold(self) -> None:
        """Make the products' tensors from the original's weights."""

    def fits(self) -> bool:
        """Whether the weights that are held still have the class, shape and dtype that they had."""
        return self._kinds_held() == self._kinds

    def expect_writes(self) -> None:
        """Say that the original's weights may have been written to: a request has come."""
        self._contents.asked = True

    def follow(self, *, anyway: bool = False) -> None:
        """Take over the original's weights if they changed, without compiling.

        Args:
            anyway: even if no change is detected.
        """
        version = self._steps.count, *versions_of(self._modules)
        if not anyway and version == self._version and not self._contents.changed():
            return
        # graphs guard on whether a tensor was made in inference mode
        with torch.inference_mode(False), torch.no_grad():
            twins = dict(self.model.named_modules())
            for name, module in self._original.named_modules():
                if name in twins and name not in self._held:
                    twins[name]._buffers.update(module._buffers)
                    twins[name]._parameters.update(module._parameters)
            self._hold()
        self._version = version
        self._contents.remember()

    def _kinds_held(self) -> list[tuple[object, ...]]:
        """Class, shape and dtype of the weights, on which the choice of layers depends."""
        weights = (layer._parameters.get("weight") for layer in self._layers)
        return [() if part is None else (type(part), part.shape, part.dtype) for part in weights]

    def _weights_held(self) -> list[Tensor]:
        held = (part for layer in self._layers for part in layer._parameters.values() if part is not None)
        return [part.detach() for part in held]


def copy_sharing_weights(original: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model's modules, in evaluation mode, with the original's weights and data attributes.

    Raises:
        ExecutionError: it has an attribute that cannot be copied.
    """
    shared: dict[int, Any] = {id(part): part for part in (*original.parameters(), *original.buffers())}
    try:
        copied: PreTrainedModel = copy.deepcopy(original, shared | shareable(original)).train(False)
    except Exception as error:  # an attribute of the user's may raise anything
        raise ExecutionError(
            f"{type(original).__name__} cannot be copied, since an attribute of it cannot: {error}"
        ) from error
    for module in copied.modules():  # made by the original's `compile`, it would run the original
        vars(module).pop("_compiled_call_impl", None)
    return copied
