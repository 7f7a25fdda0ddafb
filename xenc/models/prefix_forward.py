"""Forward passes of a causal model that get compiled: of a shared prefix, and of a packed batch after it.

Shapes: T = tokens of a packed batch, N = its document slots, P = capacity of the cache in tokens, K = key and
value heads, D = head size, C = labels.
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

    Args as for `models.forward.classify_packed`, but the model's attention implementation is
    `kernels.prefix_attention.PREFIXED_ATTENTION`.
    """
    layers: list[Tensor] = []
    inputs = packed_inputs(input_ids, position_ids, token_type_ids, cu_seqlens, max_seqlen, traits)
    model.base_model(**inputs, kept_layers=layers)
    return torch.stack(layers)


def classify_after_prefix(
    model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None,
    cu_seqlens: Tensor, pooled: Tensor, max_seqlen: int,
    cache: Tensor, prefix_cu_seqlens: Tensor, traits: Packable, targets: Tensor | None,
) -> Tensor:  # fmt: skip
    """Logits of one packed batch in which each document continues the prefix.

    Args and result as for `models.forward.classify_packed`, but position_ids restart in each document after
    the prefix's, and the model is as for `read_prefix`. Before the traits stand:

        cache: [layers, 2, P, K, D]; the prefix may be shorter than P.
        prefix_cu_seqlens: int32 [2], 0 and the prefix's length; [0, 0] for no prefix.
    """
    inputs = packed_inputs(input_ids, position_ids, token_type_ids, cu_seqlens, max_seqlen, traits)
    output = model.base_model(**inputs, prefix_cache=cache, prefix_cu_seqlens=prefix_cu_seqlens)
    return head_logits(model, output.last_hidden_state[0, pooled], traits, targets)
