"""Packed batches through encoders whose attention depends on how far apart tokens are: MPNet and DeBERTa.

Transformers writes their bias out for each pair of positions of a padded batch, inside the attention module,
which knows no other attention. So the modules around it are called here one by one.

Shapes: T = tokens of a packed batch, N = its document slots, H = hidden size, P = buckets of distances.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from ..kernels.biased_attention import biased_attention
from ..kernels.packed_attention import NO_WINDOW, packed_attention


def hidden_of_relative(body: Any, hidden: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
    """The last hidden states of a base model whose modules are as transformers made them.

    Args:
        body: an MPNetModel or a DebertaV2Model; see `last_layer.is_unmodified`.
        hidden: [1, T, H], its embeddings.
        cu_seqlens: int32 [N + 1]; see `kernels.packed_attention.packed_attention`.
        max_seqlen: upper bound of the documents' lengths.

    Returns:
        [1, T, H].
    """
    run: Callable[..., Tensor] = _RUN[type(body).__name__]
    return run(body.encoder, hidden[0], cu_seqlens, max_seqlen)[None]


def _mpnet(encoder: Any, hidden: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
    """T5's bias: a number for each head and bucket, the same in all layers."""
    buckets = encoder.relative_position_bucket(_distances(longest, hidden.device)).int()
    of_bucket = encoder.relative_attention_bias.weight.float().t().contiguous()
    for layer in encoder.layer:
        attention = layer.attention.attn
        query, key, value = (
            _by_head(part(hidden), attention) for part in (attention.q, attention.k, attention.v)
        )
        scale = attention.attention_head_size**-0.5
        attended = biased_attention(
            query, key, value, cu_seqlens, longest, scale, buckets, of_bucket, None, None
        ).flatten(-2)
        attended = layer.attention.LayerNorm(attention.o(attended) + hidden)
        hidden = layer.output(layer.intermediate(attended), attended)
    return hidden


def _deberta(encoder: Any, hidden: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
    relative = encoder.get_rel_embedding()
    for layer in encoder.layer:
        attended = _disentangled(layer.attention.self, hidden, relative, cu_seqlens, longest)
        attended = layer.attention.output(attended, hidden)
        hidden = layer.output(layer.intermediate(attended), attended)
    return hidden


def _disentangled(
    attention: Any, hidden: Tensor, relative: Tensor | None, cu_seqlens: Tensor, longest: int
) -> Tensor:
    """Attended values [T, H] of one layer: "c2p" is the query by the bucket's key, "p2c" the reverse.

    Args:
        attention: the layer's.
        hidden: [T, H].
        relative: the embeddings of the buckets [P, H].
        cu_seqlens, longest: as of `hidden_of_relative`.
    """
    projections = (attention.query_proj, attention.key_proj, attention.value_proj)
    query, key, value = (_by_head(part(hidden), attention) for part in projections)
    terms = [term for term in ("c2p", "p2c") if term in attention.pos_att_type]
    scale = (attention.attention_head_size * (1 + len(terms))) ** -0.5
    if not attention.relative_attention or not terms:
        plain: Tensor = packed_attention(query, key, value, cu_seqlens, longest, scale, False, NO_WINDOW)
        return plain.flatten(-2)
    assert relative is not None
    relative = relative[: 2 * attention.pos_ebd_size]
    shared = attention.share_att_key
    keys = queries = None
    if "c2p" in terms:
        project = attention.key_proj if shared else attention.pos_key_proj
        keys = _by_head(project(relative), attention)
    if "p2c" in terms:
        project = attention.query_proj if shared else attention.pos_query_proj
        queries = _by_head(project(relative), attention)
    buckets = _deberta_buckets(attention, longest, hidden.device)
    attended: Tensor = biased_attention(
        query, key, value, cu_seqlens, longest, scale, buckets, None, keys, queries
    )
    return attended.flatten(-2)


def _deberta_buckets(attention: Any, longest: int, device: torch.device) -> Tensor:
    """Buckets [2 x longest - 1] of distances, by transformers' own function: logarithmic if so configured."""
    behind: Tensor = -_distances(longest, device)  # transformers counts from the key to the query
    if attention.position_buckets > 0 and attention.max_relative_positions > 0:
        buckets, farthest = attention.position_buckets, attention.max_relative_positions
        behind = make_log_bucket_position(behind, buckets, farthest).long()
    span: int = attention.pos_ebd_size
    return (behind + span).clamp(0, 2 * span - 1).int()


def _distances(longest: int, device: torch.device) -> Tensor:
    """int64 [2 x longest - 1]: how far a key can stand behind the query, from all before to all after."""
    return torch.arange(1 - longest, longest, device=device)


def _by_head(part: Tensor, attention: Any) -> Tensor:
    """[rows, H] -> [rows, heads, head size]."""
    return part.view(len(part), -1, attention.attention_head_size)


_RUN: Final[dict[str, Callable[..., Tensor]]] = {"MPNetModel": _mpnet, "DebertaV2Model": _deberta}
