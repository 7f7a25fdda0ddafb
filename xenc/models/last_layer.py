"""The last layer of an encoder whose head reads one token of each document: on those alone.

After the last layer only the tokens that the head reads are looked at. So they alone ask: keys and values are
of all T tokens, but the query, the output projection, the norms and the feed-forward run on N tokens. The
model's own modules are called one by one; nothing in the model is changed.
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
    """The modules that only the tokens pass which the head reads, of a model of BERT's structure."""
    last: Any = _last_layer(model)
    return last.attention.self.query, last.attention.output, last.intermediate, last.output


def asked_by_pooled(model: PreTrainedModel) -> Module:
    """The attention whose query is of those tokens alone, of a model of BERT's structure."""
    last: Any = _last_layer(model)
    attention: Module = last.attention.self
    return attention


def is_unmodified(model: PreTrainedModel) -> bool:
    """Whether nobody else's code runs in or around the last layer, of a model of BERT's structure.

    A hook would see N tokens and not T, or, on a module whose `forward` is not called, nothing; and a module
    of another library's may look at more than one token.
    """
    body: Any = model.base_model
    if global_hooks() or not len(body.encoder.layer):
        return False
    looked_at = (body, body.encoder, *_last_layer(model).modules())
    return all(foreign_code_of(module) is None for module in looked_at)


def _last_layer(model: PreTrainedModel) -> Module:
    body: Any = model.base_model
    last: Module = body.encoder.layer[-1]
    return last


def hidden_of_pooled(model: PreTrainedModel, inputs: dict[str, Any], pooled: Tensor) -> Tensor:
    """What the base model answers for the pooled tokens.

    Args:
        model: of BERT's structure, with `is_unmodified`.
        inputs: what the base model is called with, see `forward.packed_inputs`: one row of T tokens.
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
    """What `attention` answers [1, N, H] for the tokens `asking` among all that are `hidden` [1, T, H]."""
    query, key, value = (
        part[0].unflatten(-1, (-1, attention.attention_head_size))
        for part in (attention.query(asking), attention.key(hidden), attention.value(hidden))
    )
    cu_seqlens, longest = attending["cu_seq_lens_k"], attending["max_length_k"]
    attended: Tensor = pooled_attention(query, key, value, cu_seqlens, longest, attention.scaling)
    return attended.flatten(-2)[None]
