"""Packed attention with a bias: what a score gains depends on how far the key is from the query.

Distances fall into buckets. A bucket has a number for each head (MPNet, https://arxiv.org/abs/2004.09297, as
T5), or a key and a query, which are multiplied by the token's own (DeBERTa's disentangled attention,
https://arxiv.org/abs/2006.03654, section 3.1), or all of these.

Shapes: T = tokens of a batch, N = document slots, H = heads, D = head size, P = buckets.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..errors import first_line
from .library import DTYPES, library, like_query
from .packed_attention import FARTHEST, NAMESPACE, STRIDED, by_head, runs, why_not_triton


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


@biased_attention.register_kernel("cuda")
def _on_cuda(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float,
    buckets: Tensor, of_bucket: Tensor | None, bucket_keys: Tensor | None, bucket_queries: Tensor | None,
) -> Tensor:  # fmt: skip
    """Our own kernel in Triton; there is no other."""
    why_not = why_not_biased(query.device, query.dtype, query.shape[-1])
    if why_not is not None:
        what = f"{query.dtype} attention with a bias and heads of {query.shape[-1]}"
        raise NotImplementedError(f"no CUDA kernel for {what}: {why_not}")
    if buckets.shape[0] // 2 + 1 < max_seqlen:
        raise ValueError(
            f"a document of {max_seqlen} tokens: buckets reach to {buckets.shape[0] // 2} to either side"
        )
    from .triton_bias import biased_varlen_attention

    return biased_varlen_attention(
        query, key, value, cu_seqlens, scale, buckets, of_bucket, bucket_keys, bucket_queries
    )


@cache
def why_not_biased(device: torch.device, dtype: torch.dtype, size: int) -> str | None:
    """Why attention with a bias and heads of this size does not run on CUDA; None if it does."""
    why_not = why_not_triton(device, dtype, size)
    return disagreement(device, dtype, size) if why_not is None else why_not


def disagreement(device: torch.device, dtype: torch.dtype, size: int) -> str | None:
    """What is wrong with our kernel's answers to a small batch; None if they are what SDPA says on a CPU.

    With a number for each bucket, as in MPNet, and with keys and queries, as in DeBERTa.
    """
    from .triton_bias import biased_varlen_attention

    far = 0.0
    for given in _small_batches(dtype, size):
        there: Any = [part.to(device) if isinstance(part, Tensor) else part for part in given]
        try:
            ours = biased_varlen_attention(*there).float().cpu()
        except Exception as error:
            return f"it fails: {first_line(error)}"
        apart = (ours - biased_by_sdpa(*given).float()).abs().nan_to_num(torch.inf)
        far = max(far, float(apart.max()))
    return None if far < FARTHEST else f"its answers to a small batch differ by {far:.2g}"


def _small_batches(dtype: torch.dtype, size: int) -> Iterator[tuple[Any, ...]]:
    """Arguments of `biased_by_sdpa`, on the CPU."""
    generator, count = torch.Generator().manual_seed(0), 9
    with torch.device("cpu"):
        joint = torch.randn(150, 3, 2, size, generator=generator).to(dtype)
        bounds = torch.tensor([0, 1, 70, 150, 150], dtype=torch.int32)
        buckets = torch.randint(count, (2 * 80 - 1,), generator=generator).int()
        numbers = torch.randn(2, count, generator=generator)
        keys, queries = torch.randn(2, count, 2, size, generator=generator).to(dtype)
    for bias in ((numbers, None, None), (None, keys, queries)):
        yield (*joint.unbind(1), bounds, (3 * size) ** -0.5, buckets, *bias)


def biased_by_sdpa(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scale: float,
    buckets: Tensor, of_bucket: Tensor | None, bucket_keys: Tensor | None, bucket_queries: Tensor | None,
) -> Tensor:  # fmt: skip
    """`biased_attention` by PyTorch's SDPA, one call per run of documents of equal length.

    Where tokens meet buckets, products are written out for all buckets, and then picked.
    """
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    for start, documents, tokens in runs(cu_seqlens.tolist()):
        stretch = slice(start, start + documents * tokens)
        q, k, v = (by_head(part[stretch], documents, tokens) for part in (query, key, value))
        bucket = _by_pair(buckets.long(), tokens)  # [query, key]
        bias = torch.zeros(1, device=query.device)
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
    position = torch.arange(tokens, device=buckets.device)
    distance = position - position[:, None]
    return buckets[distance + len(buckets) // 2]
