"""What of an encoder's last layer runs only for the tokens that the head reads, and whether it may.

See `forward.hidden_of_pooled`.
"""

from __future__ import annotations

from typing import Any, Final

from torch.nn import Module
from transformers import PreTrainedModel

from .foreign_code import GLOBAL_HOOKS, foreign_code_of


def of_pooled_alone(model: PreTrainedModel) -> tuple[Module, ...]:
    """The modules that run only on the tokens that the head reads, in a model of BERT's structure."""
    body: Any = model.base_model
    last = body.encoder.layer[-1]
    return last.attention.self.query, last.attention.output, last.intermediate, last.output


def asked_by_pooled(model: PreTrainedModel) -> Module:
    """The attention module whose query is computed only for those tokens."""
    body: Any = model.base_model
    attention: Module = body.encoder.layer[-1].attention.self
    return attention


_ALL_LAYERS: Final = ("MPNetModel", "DebertaV2Model")
"""Base models of which `relative_attention` calls the modules of all layers one by one."""


def is_unmodified(model: PreTrainedModel) -> bool:
    """Whether no foreign code runs in or around the layers whose modules are called one by one.

    They are the last of a model of BERT's structure, and all where attention depends on distances. A hook
    would see N tokens instead of T, or nothing on a module whose `forward` is not called. A foreign module
    may mix tokens.
    """
    body: Any = model.base_model
    layers = getattr(getattr(body, "encoder", None), "layer", None)  # somebody may have wrapped either
    if any(GLOBAL_HOOKS) or not layers:
        return False
    called = body.encoder if type(body).__name__ in _ALL_LAYERS else layers[-1]
    checked = (body, body.encoder, *called.modules())
    return all(foreign_code_of(module) is None for module in checked)
