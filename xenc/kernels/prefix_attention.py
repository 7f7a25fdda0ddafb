"""Packed attention after a shared prefix: each document attends to the prefix, and causally to itself.

Attention to the prefix, for all documents in one call, and attention within documents are combined by the
log-sum-exp of their scores (Juravsky et al. 2024, "Hydragen: High-Throughput LLM Inference with Shared
Prefixes", section 3.1). So the prefix is neither copied per document nor masked, and shapes do not depend on
its length.

Shapes: T = tokens of a batch, N = document slots, P = capacity of the cache in tokens, H = query heads,
K = key and value heads, D = head size.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from .library import like_query
from .packed_attention import NAMESPACE, STRIDED, by_head, packed_attention_forward, runs

PREFIXED_ATTENTION: Final = f"{NAMESPACE}_prefixed"
"""The attention function's name in transformers."""


@torch.library.custom_op(
    f"{NAMESPACE}::prefixed_attention", mutates_args=(), device_types="cpu", tags=STRIDED
)
def prefixed_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor,
    prefix_key: Tensor, prefix_value: Tensor, prefix_cu_seqlens: Tensor, max_seqlen: int, scale: float,
) -> Tensor:  # fmt: skip
    """softmax(scale x Q K^T) V, where a token's K and V are the prefix's and its document's up to itself.

    Args:
        query: [T, H, D].
        key: [T, K, D], where K divides H.
        value: [T, K, D].
        cu_seqlens: int32 [N + 1]; see `packed_attention`.
        prefix_key: [P, K, D].
        prefix_value: [P, K, D].
        prefix_cu_seqlens: int32 [2], 0 and the number of tokens of the prefix, which may be 0. A tensor, so
            that no graph depends on it.
        max_seqlen: upper bound of the documents' lengths.
        scale: factor of the scores.

    Returns:
        [T, H, D], in query's dtype.
    """
    out = torch.empty(query.shape, dtype=query.dtype)
    log_sums = torch.empty(query.shape[:2], dtype=torch.float32)
    share = query.shape[1] // key.shape[1]
    for start, documents, tokens in runs(cu_seqlens.tolist()):
        stretch = slice(start, start + documents * tokens)
        q, k, v = (by_head(part[stretch], documents, tokens) for part in (query, key, value))
        attended, sums = _attend(q, k, v, share, scale, causal=True)
        by_head(out[stretch], documents, tokens).copy_(attended)
        log_sums[stretch].view(documents, tokens, -1).copy_(sums.transpose(1, 2))
    count = int(prefix_cu_seqlens[1])
    if not count:
        return out
    k, v = (by_head(part[:count], 1, count) for part in (prefix_key, prefix_value))
    before, sums = _attend(by_head(query, 1, len(query)), k, v, share, scale, causal=False)
    return _together(out, log_sums, before[0].transpose(0, 1), sums[0].T)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, share: int, scale: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention [documents, H, tokens, D], and its log-sum-exps [documents, H, tokens]."""
    if share > 1:
        key, value = (part.repeat_interleave(share, dim=1) for part in (key, value))
    attended, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, scale=scale
    )
    return attended, log_sums


def _together(own: Tensor, own_log_sums: Tensor, before: Tensor, before_log_sums: Tensor) -> Tensor:
    """[T, H, D] from two parts [T, H, D] of one softmax and their log-sum-exps [T, H]."""
    weight = torch.sigmoid(before_log_sums.float() - own_log_sums.float())[..., None]
    return torch.lerp(own.float(), before.float(), weight).to(own.dtype)


@prefixed_attention.register_kernel("cuda")
def _on_cuda(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor,
    prefix_key: Tensor, prefix_value: Tensor, prefix_cu_seqlens: Tensor, max_seqlen: int, scale: float,
) -> Tensor:  # fmt: skip
    """PyTorch's variable-length FlashAttention, once per document and once with all T tokens as one."""
    if query.dtype not in (torch.float16, torch.bfloat16):
        raise NotImplementedError(f"no CUDA kernel for {query.dtype} attention after a shared prefix")
    flash = torch.ops.aten._flash_attention_forward
    own, own_log_sums, *_ = flash(
        query, key, value, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, 0.0, True, False, scale=scale,
        window_size_right=0,
    )  # fmt: skip
    before, before_log_sums, *_ = flash(
        query, prefix_key, prefix_value, torch.stack((cu_seqlens[0], cu_seqlens[-1])), prefix_cu_seqlens,
        len(query), len(prefix_key), 0.0, False, False, scale=scale,
    )  # fmt: skip
    # without any keys the kernel's log-sum-exp is infinite
    before_log_sums = before_log_sums.masked_fill(prefix_cu_seqlens[1] == 0, -torch.inf)
    return _together(own.contiguous(), own_log_sums.T, before, before_log_sums.T)


prefixed_attention.register_fake(like_query)


def _attention_forward(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Transformers' attention function. The model passes on these keywords of its `forward`:

    kept_layers: a list to which each layer appends its keys and values, [2, T, K, D].
    prefix_cache: [layers, 2, P, K, D], with prefix_cu_seqlens; without it, this is packed attention.
    """
    if kwargs.get("kept_layers") is not None:
        kwargs["kept_layers"].append(torch.stack((key[0], value[0])).transpose(1, 2))
    if kwargs.get("prefix_cache") is None:
        return packed_attention_forward(module, query, key, value, attention_mask, **kwargs)
    prefix_key, prefix_value = kwargs["prefix_cache"][module.layer_idx]
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    out = prefixed_attention(
        query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), kwargs["cu_seq_lens_q"],
        prefix_key, prefix_value, kwargs["prefix_cu_seqlens"], kwargs["max_length_q"], scale,
    )  # fmt: skip
    return out[None], None


AttentionInterface.register(PREFIXED_ATTENTION, _attention_forward)
AttentionMaskInterface.register(PREFIXED_ATTENTION, sdpa_mask)
