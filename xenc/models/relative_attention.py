"""Packed batches through encoders whose attention depends on how far apart tokens are: MPNet and DeBERTa.

Transformers writes their bias out for each pair of positions of a padded batch, inside the attention module,
which knows no other attention. So the modules around it are called here one by one.

Shapes: T = tokens of a packed batch, N = its document slots, H = hidden size, P = buckets of distances,
F = a distance; all that are farther have its bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from ..kernels.biased_attention import biased_attention
from ..kernels.packed_attention import NO_WINDOW, packed_attention


def distance_buckets(body: Any, max_length: int) -> Tensor:
    """The bucket of each distance from -F to F from a query to a key, by transformers' own functions.

    Computed on the CPU, once for a model: logarithms of two devices may round to two buckets, and
    transformers' functions make tensors on the CPU, which keep CUDA graphs away.

    Args:
        body: an MPNetModel or a DebertaV2Model.
        max_length: F is no less.

    Returns:
        int32 [2 F + 1], on the model's device.
    """
    with torch.device("cpu"):
        buckets = _BUCKETS[type(body).__name__](body.encoder, max_length)
    made = buckets.int().to(body.device)
    torch._dynamo.mark_static(made)  # else a graph takes a size of batches that is equal for this one
    return made


def attend_alike(body: Any) -> bool:
    """Whether all layers of an MPNetModel or a DebertaV2Model have one table of buckets, as transformers made
    them, and dropouts where it has them, since those of the weights are not called.
    """
    inner = [module for module in body.encoder.modules() if type(module).__name__ in _ATTENTION]
    tables = {tuple(getattr(each, name, None) for name in _TABLE) for each in inner}
    return len(tables) == 1 and all(type(each.dropout) in _DROPOUTS for each in inner)


def hidden_of_relative(
    body: Any, hidden: Tensor, cu_seqlens: Tensor, max_seqlen: int, buckets: Tensor
) -> Tensor:
    """The last hidden states of a base model whose modules are as transformers made them.

    Args:
        body: an MPNetModel or a DebertaV2Model; see `last_layer.is_unmodified`.
        hidden: [1, T, H], its embeddings.
        cu_seqlens: int32 [N + 1]; see `kernels.packed_attention.packed_attention`.
        max_seqlen: upper bound of the documents' lengths.
        buckets: int32 [2 F + 1]; see `distance_buckets`.

    Returns:
        [1, T, H].
    """
    run: Callable[..., Tensor] = _RUN[type(body).__name__]
    farthest = buckets.shape[0] // 2
    near = buckets[_distances(max_seqlen, hidden.device).clamp(-farthest, farthest) + farthest]
    return run(body.encoder, hidden[0], cu_seqlens, max_seqlen, near)[None]


def _mpnet(encoder: Any, hidden: Tensor, cu_seqlens: Tensor, longest: int, buckets: Tensor) -> Tensor:
    """T5's bias: a number for each head and bucket, the same in all layers."""
    of_bucket = encoder.relative_attention_bias.weight.float().t().contiguous()
    for layer in encoder.layer:
        attention = layer.attention.attn
        by_head = (-1, attention.attention_head_size)
        query, key, value = (
            part(hidden).unflatten(-1, by_head) for part in (attention.q, attention.k, attention.v)
        )
        scale = attention.attention_head_size**-0.5
        attended = biased_attention(
            query, key, value, cu_seqlens, longest, scale, buckets, of_bucket, None, None
        ).flatten(-2)
        attended = layer.attention.LayerNorm(layer.attention.dropout(attention.o(attended)) + hidden)
        hidden = layer.output(layer.intermediate(attended), attended)
    return hidden


def _deberta(encoder: Any, hidden: Tensor, cu_seqlens: Tensor, longest: int, buckets: Tensor) -> Tensor:
    relative = encoder.get_rel_embedding()
    for layer in encoder.layer:
        attended = _disentangled(layer.attention.self, hidden, relative, cu_seqlens, longest, buckets)
        attended = layer.attention.output(attended, hidden)
        hidden = layer.output(layer.intermediate(attended), attended)
    return hidden


def _disentangled(
    attention: Any, hidden: Tensor, relative: Tensor | None, cu_seqlens: Tensor, longest: int, buckets: Tensor
) -> Tensor:
    """Attended values [T, H] of one layer: "c2p" is the query by the bucket's key, "p2c" the reverse.

    Args:
        attention: the layer's.
        hidden: [T, H].
        relative: the embeddings of the buckets [P, H].
        cu_seqlens, longest: as of `hidden_of_relative`.
        buckets: of distances, as of `biased_attention`.
    """
    projections = (attention.query_proj, attention.key_proj, attention.value_proj)
    by_head = (attention.num_attention_heads, -1)
    query, key, value = (part(hidden).unflatten(-1, by_head) for part in projections)
    terms = [term for term in ("c2p", "p2c") if term in attention.pos_att_type]
    scale = (query.shape[-1] * (1 + len(terms))) ** -0.5
    if not attention.relative_attention or not terms:
        plain: Tensor = packed_attention(query, key, value, cu_seqlens, longest, scale, False, NO_WINDOW)
        return plain.flatten(-2)
    assert relative is not None
    relative = attention.pos_dropout(relative)[: 2 * attention.pos_ebd_size]
    shared = attention.share_att_key
    keys = queries = None
    if "c2p" in terms:
        project = attention.key_proj if shared else attention.pos_key_proj
        keys = project(relative).unflatten(-1, by_head)
    if "p2c" in terms:
        project = attention.query_proj if shared else attention.pos_query_proj
        queries = project(relative).unflatten(-1, by_head)
    attended: Tensor = biased_attention(
        query, key, value, cu_seqlens, longest, scale, buckets, None, keys, queries
    )
    return attended.flatten(-2)


def _mpnet_buckets(encoder: Any, max_length: int) -> Tensor:
    """The last bucket begins before 128 tokens."""
    buckets: Tensor = encoder.relative_position_bucket(_distances(max(128, max_length) + 1))
    return buckets


def _deberta_buckets(encoder: Any, max_length: int) -> Tensor:
    """Logarithmic if so configured; one if no layer attends by distance."""
    attention = encoder.layer[0].attention.self
    if not attention.relative_attention:
        return torch.zeros(1)
    span, farthest = attention.pos_ebd_size, encoder.max_relative_positions
    # transformers counts from the key to the query
    behind: Tensor = -_distances(max(span, farthest, max_length) + 1)
    if encoder.position_buckets > 0 and farthest > 0:
        behind = make_log_bucket_position(behind, encoder.position_buckets, farthest).long()
    buckets: Tensor = (behind + span).clamp(0, 2 * span - 1)
    return buckets


def _distances(longest: int, device: torch.device | None = None) -> Tensor:
    """int64 [2 x longest - 1]: how far a key can stand behind the query, from all before to all after."""
    return torch.arange(1 - longest, longest, device=device)


_ATTENTION: Final = ("MPNetSelfAttention", "DisentangledSelfAttention")

_TABLE: Final = ("relative_attention", "pos_ebd_size")

_DROPOUTS: Final = (torch.nn.Dropout, torch.nn.Identity)

_RUN: Final[dict[str, Callable[..., Tensor]]] = {"MPNetModel": _mpnet, "DebertaV2Model": _deberta}

_BUCKETS: Final[dict[str, Callable[[Any, int], Tensor]]] = {
    "MPNetModel": _mpnet_buckets, "DebertaV2Model": _deberta_buckets,
}  # fmt: skip
