"""A twin of a model: the same weights, some of its products done otherwise; the model itself stays as it is.

All parameters, buffers and data in attributes of modules that the products do not hold are the model's own.
What they hold was made from the model's weights and is made anew when those change.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from operator import is_
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import ExecutionError
from .weights import Contents, Settings, shareable, versions_of


class Twin(ABC):
    """A model beside another one, which follows what becomes of the other's weights.

    Args:
        original: left as it is.

    Raises:
        ExecutionError: it has an attribute that cannot be copied.

    Attributes:
        model: the twin, in evaluation mode.
    """

    def __init__(self, original: PreTrainedModel) -> None:
        self._original = original
        self._modules, self._settings = tuple(original.modules()), Settings(original)
        shared = {id(part): part for part in (*original.parameters(), *original.buffers())}
        self.model: PreTrainedModel = _copied(original, shared | shareable(original)).train(False)
        for module in self.model.modules():  # what the original's `compile` made would run the original
            vars(module).pop("_compiled_call_impl", None)
        self._held = self._replace()
        self._layers = [original.get_submodule(name) for name in sorted(self._held)]
        self._kinds = self._kinds_held()
        self._contents = Contents(self._weights_held)
        self._version: tuple[object, ...] = ()
        self.follow(anyway=True)

    @abstractmethod
    def _replace(self) -> frozenset[str]:
        """Change the twin's modules; answer with the names of the layers whose weights are held otherwise."""

    @abstractmethod
    def _hold(self) -> None:
        """Make what is held anew, from the original's weights."""

    def is_of(self, model: PreTrainedModel) -> bool:
        """Whether a model still consists of the modules that this twin was made after, set as they were."""
        now = tuple(model.modules())
        same = len(now) == len(self._modules) and all(map(is_, now, self._modules))
        return same and self._settings.unchanged() and self._kinds_held() == self._kinds

    def follow(self, *, anyway: bool = False) -> None:
        """Take over the original's weights, if they have changed: nothing is compiled for that.

        Args:
            anyway: even if no change shows.
        """
        version = versions_of(self._modules)
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

    def following(self, forward: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
        """A forward pass of the twin that first looks for changed weights."""

        def run(batch: Any) -> Tensor:
            self.follow()
            return forward(batch)

        return run

    def _kinds_held(self) -> list[tuple[object, ...]]:
        """What a layer was chosen by, and might no longer be."""
        weights = (layer._parameters.get("weight") for layer in self._layers)
        return [() if part is None else (type(part), part.shape, part.dtype) for part in weights]

    def _weights_held(self) -> list[Tensor]:
        held = (part for layer in self._layers for part in layer._parameters.values() if part is not None)
        return [part.detach() for part in held]


def _copied(original: PreTrainedModel, shared: dict[int, Any]) -> PreTrainedModel:
    try:
        return copy.deepcopy(original, shared)
    except Exception as error:  # whatever an attribute of somebody's raises
        raise ExecutionError(
            f"{type(original).__name__} cannot be copied, since an attribute of it cannot: {error}"
        ) from error
