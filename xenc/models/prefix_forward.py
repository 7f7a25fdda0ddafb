"""A causal model -> keys and values of a prefix, and logits of a packed batch after it: what gets compiled.

Shapes: T = tokens of a packed batch, N = its document slots, P = tokens that the cache has room for, K = key
and value heads, D = head size, C = labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .families import Packable
from .forward import head_logits, packed_inputs


def read_prefix(
    model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None,
    cu_seqlens: Tensor, _pooled: Tensor, max_seqlen: int, traits: Packable,
) -> Tensor:  # fmt: skip
    """Keys, after rotary embedding, and values of a packed batch of T tokens: [layers, 2, T, K, D].

    Args:
        model: a causal model whose attention implementation is `attention.PREFIXED_ATTENTION`.
        input_ids: int64 [T]; this and the next as in `forward.classify_packed`.
        position_ids: int64 [T].
        token_type_ids: int64 [T] or None.
        cu_seqlens: int32 [N + 1].
        max_seqlen: no document is longer.
        traits: the family's.
    """
    layers: list[Tensor] = []
    inputs = packed_inputs(input_ids, position_ids, token_type_ids, cu_seqlens, max_seqlen, traits)
    model.base_model(**inputs, kept_layers=layers)
    return torch.stack(layers)


def classify_after_prefix(
    model: PreTrainedModel,
    input_ids: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor | None,
    cu_seqlens: Tensor,
    pooled: Tensor,
    max_seqlen: int,
    cache: Tensor,
    prefix_cu_seqlens: Tensor,
    traits: Packable,
    targets: Tensor | None,
) -> Tensor:
    """Logits of one packed batch, each of whose documents continues the prefix.

    Args:
        model: as `read_prefix`'s.
        input_ids: int64 [T]; this and those not named here as in `forward.classify_packed`.
        position_ids: int64 [T], starting anew in each document where the prefix ends.
        token_type_ids: int64 [T] or None.
        cu_seqlens: int32 [N + 1].
        pooled: int64 [N].
        max_seqlen: no document is longer.
        cache: [layers, 2, P, K, D], of which the prefix may be shorter.
        prefix_cu_seqlens: int32 [2], 0 and the prefix's length; 0 again for none.
        traits: the family's pooling, which is "last", and head.
        targets: int64 [1] or [2] for a "vocabulary" head.

    Returns:
        [N, C], in the model's dtype; of no meaning for slots without a document.
    """
    inputs = packed_inputs(input_ids, position_ids, token_type_ids, cu_seqlens, max_seqlen, traits)
    hidden = model.base_model(
        **inputs, prefix_cache=cache, prefix_cu_seqlens=prefix_cu_seqlens
    ).last_hidden_state[0]
    return head_logits(model, hidden[pooled], traits, targets)
