"""The attention implementation of a model, which is lent to a forward pass and given back."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakValueDictionary

from torch.nn import Module
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..forks import renewed_in_a_child
from .foreign_code import is_known

_LOCKS: Final[WeakValueDictionary[int, threading.RLock]] = WeakValueDictionary()
"""By the id of a model's configuration, which several pipelines may share."""


def configs_of(modules: Iterable[Module]) -> tuple[PretrainedConfig, ...]:
    """The configurations that modules have, each once.

    A layer that was copied, or taken from another model, has its own.
    """
    found = (vars(module).get("config") for module in modules)
    return tuple({id(one): one for one in found if isinstance(one, PretrainedConfig)}.values())


def attention_of_somebody(configs: Iterable[PretrainedConfig]) -> str | None:
    """The name of an attention that somebody registered and a model is set to; None if there is none."""
    for config in configs:
        name = config._attn_implementation
        function = ALL_ATTENTION_FUNCTIONS.get(name)
        function = getattr(function, "func", function)  # transformers' own may be a partial
        if function is not None and not is_known(function):
            return str(name)
    return None


class Attention:
    """Sets the attention of a model for a forward pass.

    Args:
        model: a model.
        name: transformers' name of an attention implementation.
    """

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        self._model, self._name = model, name
        self._configs = [one for one in configs_of(model.modules()) if type(one) is type(model.config)]
        self._checked: list[str | None] | None = None
        self._lock = _LOCKS.setdefault(id(model.config), renewed_in_a_child(threading.RLock()))

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within it the model has this attention, as far as transformers allows it; behind it its own.

        No other pipeline of the same model runs meanwhile, and what a user sets meanwhile stays.
        """
        with self._lock:
            before = self._now()
            if self._checked is None:
                self._checked = self._check()
            if before == self._checked:
                yield
                return
            try:
                self._set(self._checked)
                yield
            finally:
                if self._now() == self._checked:
                    self._set(before)

    def _now(self) -> list[str | None]:
        return [config._attn_implementation for config in self._configs]

    def _check(self) -> list[str | None]:
        """Set it as transformers does, which asks each part of the model whether it can; then what they have.

        T5's encoder and decoder have their own configurations, which transformers 5.17 leaves out.
        """
        for part in self._model.modules():
            if isinstance(part, PreTrainedModel) and part.config._attn_implementation != self._name:
                part.set_attn_implementation(self._name)
        parts = [part for part in self._model.modules() if isinstance(part, PreTrainedModel)]
        asked = {id(part.config): part.config._attn_implementation for part in parts}
        of_others = self._model.config._attn_implementation
        return [asked.get(id(config), of_others) for config in self._configs]

    def _set(self, names: list[str | None]) -> None:
        for config, name in zip(self._configs, names, strict=True):
            config._attn_implementation_internal = name  # as transformers does, to leave configs within alone
