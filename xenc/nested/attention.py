"""Attention on PyTorch's jagged tensors: a batch that has no padding and whose tensors know it.

PyTorch's own attention runs on them. On a CPU it takes documents apart one by one, on nested tensors of an
older layout that the compiler cannot trace, so that a compiled graph needs it as an operator: there, one that
takes the values and gives them back. The name is derived from this package's, as in `attention`.

Shapes: N = documents, j = tokens of each, T = their sum, H = heads, D = head size.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.nested import nested_tensor_from_jagged
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..attention import NAMESPACE

NESTED_ATTENTION: Final = f"{NAMESPACE}_nested"
"""The name transformers knows the attention function by."""


@torch.library.custom_op(f"{NAMESPACE}::nested_attention", mutates_args=(), device_types="cpu")
def nested_attention(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float) -> Tensor:
    """softmax(scale x Q K^T) V within each document, by PyTorch's attention on jagged tensors.

    Args:
        query: [T, H, D].
        key: [T, H, D].
        value: [T, H, D].
        offsets: int64 [N + 1], ascending: document i is the tokens offsets[i] up to offsets[i + 1].
        scale: factor of the scores.

    Returns:
        [T, H, D], in query's dtype.
    """
    q, k, v = (nested_tensor_from_jagged(part, offsets).transpose(1, 2) for part in (query, key, value))
    out: Tensor = scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).values()
    return out.contiguous()


@nested_attention.register_fake
def _fake(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float) -> Tensor:
    return torch.empty(query.shape, dtype=query.dtype, device=query.device)


def _attention_forward(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """What transformers calls: jagged tensors [N, H, j, D], or padded ones, which go to SDPA."""
    if not query.is_nested:
        padded: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return padded
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    if _through_an_operator(query):
        parts: list[Any] = [part.transpose(1, 2) for part in (query, key, value)]
        offsets = parts[0].offsets()
        out = nested_attention(*(part.values() for part in parts), offsets, scale)
        return nested_tensor_from_jagged(out, offsets), None
    return scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2), None


def _through_an_operator(query: Tensor) -> bool:
    return query.device.type == "cpu" and torch.compiler.is_compiling()


def _mask(attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """SDPA's for padded batches; none where there is no padding to mask."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NESTED_ATTENTION, _attention_forward)
AttentionMaskInterface.register(NESTED_ATTENTION, _mask)
