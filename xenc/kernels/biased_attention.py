"""Packed attention with a bias: what a score gains depends on how far the key is from the query.

Distances fall into buckets. A bucket has a number for each head (MPNet, https://arxiv.org/abs/2004.09297, as
T5), or a key and a query, which are multiplied by the token's own (DeBERTa's disentangled attention,
https://arxiv.org/abs/2006.03654, section 3.1), or all of these.

Shapes: T = tokens of a batch, N = document slots, H = heads, D = head size, P = buckets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .library import DTYPES, library, like_query
from .packed_attention import NAMESPACE, STRIDED, by_head, runs


@torch.library.custom_op(f"{NAMESPACE}::biased_attention", mutates_args=(), device_types="cpu", tags=STRIDED)
def biased_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float,
    buckets: Tensor, of_bucket: Tensor | None, bucket_keys: Tensor | None, bucket_queries: Tensor | None,
) -> Tensor:  # fmt: skip
    """softmax(scale x (Q K^T + Q BK^T + K BQ^T) + B) V within each document.

    For a query at i and a key at j, BK, BQ and B are those of the bucket of j - i.

    Args:
        query: [T, H, D].
        key, value: [T, H, D].
        cu_seqlens: int32 [N + 1]; see `packed_attention`.
        max_seqlen: upper bound of the documents' lengths.
        scale: positive factor of the scores.
        buckets: int32 [2 R + 1]: the bucket, 0 to P - 1, of each distance from -R to R; R + 1 is no less than
            max_seqlen.
        of_bucket: float32 [H, P], B; or None for 0.
        bucket_keys: [P, H, D], BK, in query's dtype; or None for 0.
        bucket_queries: [P, H, D], BQ, in query's dtype; or None for 0.

    Returns:
        [T, H, D], in query's dtype.
    """
    operators = library().operators
    if operators is not None and query.dtype in DTYPES:
        own: Tensor = operators.biased_attention(
            query, key, value, cu_seqlens, max_seqlen, scale, buckets, of_bucket, bucket_keys, bucket_queries
        )
        return own
    return biased_by_sdpa(
        query, key, value, cu_seqlens, scale, buckets, of_bucket, bucket_keys, bucket_queries
    )


biased_attention.register_fake(like_query)


def biased_by_sdpa(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scale: float,
    buckets: Tensor, of_bucket: Tensor | None, bucket_keys: Tensor | None, bucket_queries: Tensor | None,
) -> Tensor:  # fmt: skip
    """`biased_attention` by PyTorch's SDPA, one call per run of documents of equal length.

    Where tokens meet buckets, products are written out for all buckets, and then picked.
    """
    out = torch.empty(query.shape, dtype=query.dtype)
    for start, documents, tokens in runs(cu_seqlens.tolist()):
        stretch = slice(start, start + documents * tokens)
        q, k, v = (by_head(part[stretch], documents, tokens) for part in (query, key, value))
        bucket = _by_pair(buckets.long(), tokens)  # [query, key]
        bias = torch.zeros(1)
        if bucket_keys is not None:
            terms = q.float() @ bucket_keys.float().permute(1, 2, 0)  # [documents, H, query, P]
            bias = bias + scale * terms.gather(-1, bucket.expand(*terms.shape[:2], -1, -1))
        if bucket_queries is not None:
            terms = k.float() @ bucket_queries.float().permute(1, 2, 0)  # [documents, H, key, P]
            picked = terms.gather(-1, bucket.T.expand(*terms.shape[:2], -1, -1))
            bias = bias + scale * picked.transpose(-1, -2)
        if of_bucket is not None:
            bias = bias + of_bucket[:, bucket]
        attended = scaled_dot_product_attention(q.float(), k.float(), v.float(), bias, scale=scale)
        by_head(out[stretch], documents, tokens).copy_(attended)
    return out


def _by_pair(buckets: Tensor, tokens: int) -> Tensor:
    """[2 R + 1] -> [tokens, tokens]: the bucket of each query (row) and key (column)."""
    position = torch.arange(tokens)
    distance = position - position[:, None]
    return buckets[distance + len(buckets) // 2]
