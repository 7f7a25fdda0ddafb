"""Attention of one token of each document to the whole document, for an encoder's last layer.

Shapes: T = tokens of a batch, N = document slots, H = query heads, K = key and value heads, D = head size.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .library import DTYPES, library, like_query
from .packed_attention import NAMESPACE, STRIDED, by_pytorch


@torch.library.custom_op(f"{NAMESPACE}::pooled_attention", mutates_args=(), device_types="cpu", tags=STRIDED)
def pooled_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float
) -> Tensor:
    """softmax(scale x q K^T) V for one query of each document.

    Args:
        query: [N, H, D].
        key: [T, K, D], where K divides H.
        value: [T, K, D].
        cu_seqlens: int32 [N + 1]; see `packed_attention`.
        max_seqlen: upper bound of the documents' lengths.
        scale: factor of the scores.

    Returns:
        [N, H, D], in query's dtype; undefined for slots without a document.
    """
    operators = library().operators
    if operators is not None and query.dtype in DTYPES:
        own: Tensor = operators.pooled_attention(query, key, value, cu_seqlens, max_seqlen, scale)
        return own
    return pooled_by_sdpa(query, key, value, cu_seqlens, scale)


def pooled_by_sdpa(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scale: float) -> Tensor:
    """`pooled_attention` by PyTorch's SDPA, batch-invariant (bitwise).

    Its bits depend on how many documents share a call and how rows are aligned: hence one call per document,
    on copies.
    """
    out = torch.zeros(query.shape, dtype=query.dtype)
    for slot, (start, end) in enumerate(pairwise(cu_seqlens.tolist())):
        if start == end:
            continue
        asked, keys, values = (
            part.transpose(0, 1).clone(memory_format=torch.contiguous_format)[None]  # [1, heads, tokens, D]
            for part in (query[slot, None], key[start:end], value[start:end])
        )
        attended = scaled_dot_product_attention(
            asked, keys, values, scale=scale, enable_gqa=key.shape[1] != query.shape[1]
        )
        out[slot] = attended[0, :, 0]
    return out


@pooled_attention.register_kernel("cuda")
def _on_cuda(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float
) -> Tensor:
    each = torch.arange(len(cu_seqlens), dtype=torch.int32, device=cu_seqlens.device)
    return by_pytorch(query, key, value, (each, cu_seqlens), (1, max_seqlen), scale)


pooled_attention.register_fake(like_query)
