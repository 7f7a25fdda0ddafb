"""What hangs on the modules of a CrossEncoder, and whether that has changed since the last look.

Users set hooks, wrap forwards, replace modules, train adapters. Every request asks whether anything of this
has changed, by the identity of objects; only then the modules are looked at in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import is_
from typing import Any, Final

import torch
from torch.nn import Module, ModuleList
from torch.utils.hooks import RemovableHandle

from .attention import configs_of
from .families import reads_tokens_alone
from .foreign_code import GLOBAL_HOOKS, attached_code, code_of, forward_of, hooks_of, is_known
from .last_layer import is_unmodified
from .weights import is_own, settings_of

_STEPS: Final = ("__call__", "_call_impl", "_wrapped_call_impl", "_inference", "forward", "preprocess")
"""Methods of a CrossEncoder and its modules through which sentence-transformers' predict goes."""

_OWN_STEPS: Final = frozenset((*_STEPS, "_compiled_call_impl"))


class Look:
    """The modules of a CrossEncoder as they are now.

    Args:
        cross_encoder: itself the first of the modules.

    Attributes:
        model: the transformers model in it, or what is in its place.
        configs: those of the modules, each once.
        training: whether a module is in training mode.
        attached: whose code the fast path would not run as PyTorch runs it, for a message; None if there is
            none.
        causal: what attention modules say of whether a token sees only those before it.
        windows_as_configured: whether layers have the sliding windows of their configuration, from which
            transformers makes masks.
        positions_count: whether tables of position ids are 0, 1, 2, as the architectures that can be packed
            make them.
        rotations_grow: whether a long text changes the angles of others: of those beside it, and after it.
        rows_alone: whether each layer in the modules behind the first reads one row at a time.
    """

    def __init__(self, cross_encoder: Any) -> None:
        self._modules: tuple[Module, ...] = tuple(cross_encoder.modules())
        children = chain.from_iterable(module._modules.items() for module in self._modules)
        self._places = tuple((name, id(child)) for name, child in children)  # one module may have two places
        self._kinds = tuple({type(module): None for module in self._modules})
        self.model: Any = cross_encoder.transformers_model
        self.configs = configs_of(self._modules)
        self._watch()
        self.training = any(module.training for module in self._modules)
        self.attached = _own_step(cross_encoder) or attached_code(cross_encoder)
        own = [vars(module) for module in self._modules]
        self.causal = {said for said in (each.get("is_causal") for each in own) if isinstance(said, bool)}
        self.windows_as_configured = all(map(_is_configured, own)) and _slide_as_masked(self.model)
        self.positions_count = all(map(_counts, self._modules))
        self.rotations_grow = any("dynamic" in str(each.get("rope_type")) for each in own)
        self.rows_alone = all(reads_tokens_alone(layer, ()) for layer in _layers_behind(cross_encoder))
        self._last_layer: bool | None = None
        self._code = (
            *map(type, self._modules),
            *chain.from_iterable(map(code_of, self._kinds)),
            *settings_of(self.configs),
        )
        self._settings = settings_of(self.model.modules()) if isinstance(self.model, Module) else ()

    def holds(self) -> bool:
        """Whether nothing has changed since."""
        now = self._objects()
        return len(now) == len(self._seen) and all(map(is_, now, self._seen))

    def same(self, other: Look, *, settings: bool) -> bool:
        """Whether another look found the same modules in the same places and code, and settings if asked."""
        alike = self._places == other._places and self._code == other._code
        return alike and (not settings or self._settings == other._settings)

    @property
    def last_layer_is_unmodified(self) -> bool:
        """See `last_layer.is_unmodified`; for a model of BERT's structure."""
        if self._last_layer is None:  # cached_property has a lock, which a fork may find held
            self._last_layer = is_unmodified(self.model)
        return self._last_layer

    def _watch(self) -> None:
        """Remember the objects whose identity tells of a change.

        They are attributes, of modules, of their classes and of configurations, children, what stands in
        lists, position ids, and hooks where there are some; that others were registered shows in torch's
        counter. The CrossEncoder's own attributes change at each request.
        """
        first, *others = self._modules
        self._classes = [vars(kind) for kind in {type(module): None for module in others}]
        attributes = [vars(module) for module in others]
        positions = [module._buffers for module in others if "position_ids" in module._buffers]
        hooks = [each for module in self._modules for each in hooks_of(module) if each]
        children = [module._modules for module in self._modules]
        dicts = (*attributes, *children, *positions, *hooks, *GLOBAL_HOOKS)
        self._dicts = [each for each in dicts if isinstance(each, dict)]  # torch.jit has others
        values = chain.from_iterable(map(dict.values, attributes))
        self._lists = [value for value in values if isinstance(value, list)]
        self._own, parts = vars(first), {type(part): None for part in (first, *first.children())}
        self._steps = [(kind, step) for kind in parts for step in _STEPS if hasattr(kind, step)]
        self._seen = self._objects()

    def _objects(self) -> list[object]:
        return [
            RemovableHandle.next_id,
            len(_OWN_STEPS & self._own.keys()),
            *map(type, self._modules),
            *map(forward_of, self._kinds),  # which a class may inherit
            *chain.from_iterable(each.values() for each in self._classes),
            *(getattr(kind, step) for kind, step in self._steps),
            *chain.from_iterable(map(dict.values, self._dicts)),
            *(value for config in self.configs for name, value in vars(config).items() if is_own(name)),
            *chain.from_iterable(self._lists),
        ]


def _layers_behind(cross_encoder: Any) -> Iterator[Module]:
    """What the modules behind the first are made of."""
    return (layer for module in list(cross_encoder)[1:] for layer in module.modules() if layer is not module)


def _is_configured(own: dict[str, Any]) -> bool:
    """Whether a layer's window is the one it was made with. ModernBERT's counts the token itself."""
    config = own.get("config")
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "model_type", None) == "modernbert":
        window += 1
    return own.get("sliding_window") in (None, window)


def _slide_as_masked(model: Any) -> bool:
    """Whether the layers with windows are those that are masked so: by their place, or their own type."""
    body = getattr(model, "base_model", None)
    types = getattr(getattr(body, "config", None), "layer_types", None)
    layers = getattr(body, "layers", None)
    if types is None or not isinstance(layers, ModuleList):
        return True
    for place, layer in enumerate(layers):
        windows = [vars(part)["sliding_window"] for part in layer.modules() if "sliding_window" in vars(part)]
        masked = vars(layer).get("attention_type", types[place] if place < len(types) else None)
        if any((window is not None) != (masked == "sliding_attention") for window in windows):
            return False
    return True


def _counts(module: Module) -> bool:
    if "position_ids" not in module._buffers:
        return True
    table = module._buffers["position_ids"]
    return table is None or torch.equal(table.flatten(), torch.arange(table.numel(), device=table.device))


def _own_step(cross_encoder: Any) -> str | None:
    """Which step of sentence-transformers' predict somebody overrode in a CrossEncoder or its modules."""
    for part in (cross_encoder, *cross_encoder):
        steps = [step for step in _STEPS if hasattr(type(part), step)]
        own = [step for step in steps if step in vars(part) or not is_known(getattr(type(part), step))]
        if own:
            return f"a forward pass or preprocessing of its own ({type(part).__name__}.{own[0]})"
    return None
