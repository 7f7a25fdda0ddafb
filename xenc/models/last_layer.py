"""Runs an encoder's last layer only for the tokens that the head reads, one of each document.

Keys and values are computed for all T tokens, but the query, the output projection, the norms and the
feed-forward only for N. The model's own modules are called one by one; the model is not changed.
"""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel

from ..kernels.pooled_attention import pooled_attention
from .foreign_code import foreign_code_of, global_hooks

_EMBEDDED: Final = ("input_ids", "position_ids", "token_type_ids")


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


def is_unmodified(model: PreTrainedModel) -> bool:
    """Whether no foreign code runs in or around the last layer of a model of BERT's structure.

    A hook would see N tokens instead of T, or nothing on a module whose `forward` is not called. A foreign
    module may mix tokens.
    """
    body: Any = model.base_model
    if global_hooks() or not len(body.encoder.layer):
        return False
    checked = (body, body.encoder, *body.encoder.layer[-1].modules())
    return all(foreign_code_of(module) is None for module in checked)


def hidden_of_pooled(model: PreTrainedModel, inputs: dict[str, Any], pooled: Tensor) -> Tensor:
    """The base model's last hidden states of the pooled tokens.

    Args:
        model: of BERT's structure, and `is_unmodified`.
        inputs: one row of T tokens, from `models.forward.packed_inputs`.
        pooled: int64 [N], which of the T tokens.

    Returns:
        [N, H].
    """
    body: Any = model.base_model
    hidden = body.embeddings(**{name: inputs[name] for name in _EMBEDDED if name in inputs})
    if hasattr(body, "embeddings_project"):
        hidden = body.embeddings_project(hidden)
    attending = {name: value for name, value in inputs.items() if name not in _EMBEDDED}
    *layers, last = body.encoder.layer
    for layer in layers:
        hidden = layer(hidden, **attending)
    asking = hidden[:, pooled]
    attended = _attend(last.attention.self, asking, hidden, attending)
    attended = last.attention.output(attended, asking)
    of_pooled: Tensor = last.feed_forward_chunk(attended)[0]
    return of_pooled


def _attend(attention: Any, asking: Tensor, hidden: Tensor, attending: dict[str, Any]) -> Tensor:
    """Attention [1, N, H] of the tokens `asking` [1, N, H] to all tokens `hidden` [1, T, H]."""
    query, key, value = (
        part[0].unflatten(-1, (-1, attention.attention_head_size))
        for part in (attention.query(asking), attention.key(hidden), attention.value(hidden))
    )
    cu_seqlens, longest = attending["cu_seq_lens_k"], attending["max_length_k"]
    attended: Tensor = pooled_attention(query, key, value, cu_seqlens, longest, attention.scaling)
    return attended.flatten(-2)[None]
