"""Packed attention: documents are concatenated, and each attends only to itself.

An operator with a kernel per device, and an attention function for transformers that uses it for packed
batches, and SDPA for padded ones. Their names derive from this package's, so that two revisions of xenc can
live in one process.

Shapes: T = tokens of a batch, N = document slots, H = query heads, K = key and value heads, D = head size.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from itertools import groupby, pairwise
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..errors import first_line
from .library import DTYPES, library, like_query

logger = logging.getLogger(__name__)

NAMESPACE: Final = (__package__ or "xenc.kernels").rpartition(".")[0].replace(".", "_")
"""Prefix of the names of operators and attention functions."""

PACKED_ATTENTION: Final = f"{NAMESPACE}_packed"
"""The attention function's name in transformers."""

NO_WINDOW: Final = -1

FARTHEST: Final = 0.03
"""That two kernels may be apart in 16 bits on inputs of unit spread: a few units in the last place."""

STRIDED: Final = (torch.Tag.needs_fixed_stride_order,)
"""The kernels read views, such as query, key and value of one product, so Inductor need not copy."""


@torch.library.custom_op(f"{NAMESPACE}::packed_attention", mutates_args=(), device_types="cpu", tags=STRIDED)
def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor,
    max_seqlen: int, scale: float, causal: bool, window: int, cap: float = 0.0,
) -> Tensor:  # fmt: skip
    """softmax(scale x Q K^T) V within each document.

    Args:
        query: [T, H, D].
        key: [T, K, D], where K divides H.
        value: [T, K, D].
        cu_seqlens: int32 [N + 1], ascending: document i is tokens cu_seqlens[i] to cu_seqlens[i + 1]; the
            documents must cover all T tokens. Slots without a document repeat T.
        max_seqlen: upper bound of the documents' lengths.
        scale: factor of the scores.
        causal: whether a token attends to none after it.
        window: how many tokens to either side a token attends to, or NO_WINDOW.
        cap: if positive, a scaled score s becomes cap tanh(s / cap) (Gemma 2, arXiv:2408.00118, section 2).

    Returns:
        [T, H, D], in query's dtype.
    """
    operators = library().operators
    if operators is not None and query.dtype in DTYPES:
        own: Tensor = operators.attention(
            query, key, value, cu_seqlens, max_seqlen, scale, causal, window, cap
        )
        return own
    return by_sdpa(query, key, value, cu_seqlens, scale, causal, window, cap)


def by_sdpa(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scale: float, causal: bool, window: int,
    cap: float = 0.0,
) -> Tensor:  # fmt: skip
    """`packed_attention` by PyTorch's SDPA, one call per run of documents of equal length.

    SDPA knows no cap: with one, scores are written out.
    """
    out = torch.empty(query.shape, dtype=query.dtype)
    for start, documents, tokens in runs(cu_seqlens.tolist()):
        stretch = slice(start, start + documents * tokens)
        q, k, v = (by_head(part[stretch], documents, tokens) for part in (query, key, value))
        if k.shape[1] != q.shape[1]:
            k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
        mask = _window_mask(tokens, window, causal=causal) if NO_WINDOW < window < tokens - 1 else None
        if cap:
            attended = _capped(q, k, v, mask, scale, cap, causal=causal)
        else:
            attended = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=scale, is_causal=causal and mask is None
            )
        by_head(out[stretch], documents, tokens).copy_(attended)
    return out


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, cap: float, *, causal: bool
) -> Tensor:
    """Attention with capped scores, of parts [documents, H, tokens, D]; mask is True where to attend."""
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    scores = cap * torch.tanh(scores / cap)
    if mask is None and causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # padding may see nothing
    return (scores.softmax(-1) @ value.float()).to(query.dtype)


def runs(cu_seqlens: list[int]) -> list[tuple[int, int, int]]:
    """(first token, documents, tokens of each) per run of consecutive documents of one length."""
    lengths = [end - start for start, end in pairwise(cu_seqlens)]
    runs, start = [], 0
    for tokens, documents in groupby(lengths):
        count = len(list(documents))
        if tokens:
            runs.append((start, count, tokens))
        start += count * tokens
    return runs


def by_head(part: Tensor, documents: int, tokens: int) -> Tensor:
    """[documents x tokens, H, D] -> a view [documents, H, tokens, D]."""
    return part.view(documents, tokens, *part.shape[1:]).transpose(1, 2)


def _window_mask(tokens: int, window: int, *, causal: bool) -> Tensor:
    """[tokens, tokens]: True where a query (row) attends to a key (column)."""
    position = torch.arange(tokens)
    ahead = position - position[:, None]
    return (ahead >= -window) & (ahead <= (0 if causal else window))


@packed_attention.register_kernel("cuda")
def _on_cuda(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor,
    max_seqlen: int, scale: float, causal: bool, window: int, cap: float = 0.0,
) -> Tensor:  # fmt: skip
    """Our own kernel in Triton where it runs, else PyTorch's; neither has a cap."""
    if cap:
        raise NotImplementedError(f"no CUDA kernel for attention with a cap of {cap}")
    if why_not_triton(query.device, query.dtype, query.shape[-1]) is None:
        from .triton_attention import varlen_attention

        return varlen_attention(query, key, value, cu_seqlens, scale, causal, window)
    return by_pytorch(
        query, key, value, (cu_seqlens, cu_seqlens), (max_seqlen, max_seqlen), scale, causal, window
    )


@cache
def why_not_triton(device: torch.device, dtype: torch.dtype, size: int) -> str | None:
    """Why packed attention with heads of this size does not run in Triton; None if it does."""
    if dtype not in (torch.float16, torch.bfloat16):
        return f"its kernel is for bfloat16 and float16, not {dtype}"
    if size not in (32, 64, 128):
        return f"its kernel is for heads of 32, 64 and 128, not {size}"
    if torch.version.cuda is None or device.type != "cuda":
        return "no CUDA"
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:  # a GPU is found by code that is compiled at the first use, for which there may be no C compiler
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:
        return f"Triton does not work: {first_line(error)}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    wrong = disagreement(device, dtype, size)
    if wrong is not None:
        logger.warning("packed attention runs in PyTorch's kernel, and not in xenc's own: %s", wrong)
    return wrong


def disagreement(device: torch.device, dtype: torch.dtype, size: int) -> str | None:
    """What is wrong with our kernel's answer to a small batch; None if PyTorch's kernel gives the same."""
    from .triton_attention import varlen_attention

    generator = torch.Generator(device).manual_seed(0)
    joint = torch.randn(150, 3, 2, size, generator=generator, device=device, dtype=torch.float32).to(dtype)
    (query, key, value), scale = joint.unbind(1), size**-0.5
    bounds = torch.tensor([0, 1, 70, 150, 150], dtype=torch.int32, device=device)
    try:
        ours = varlen_attention(query, key, value, bounds, scale, causal=False, window=NO_WINDOW).float()
    except Exception as error:
        return f"it fails: {first_line(error)}"
    theirs = by_pytorch(query, key, value, (bounds, bounds), (80, 80), scale).float()
    far = float((ours - theirs).abs().nan_to_num(torch.inf).max())
    return None if far < FARTHEST else f"its answers to a small batch differ by {far:.2g}"


def by_pytorch(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: tuple[Tensor, Tensor], longest: tuple[int, int],
    scale: float, causal: bool = False, window: int = NO_WINDOW,
) -> Tensor:  # fmt: skip
    """PyTorch's variable-length FlashAttention; its memory-efficient attention for float32.

    `cu_seqlens` and `longest` are those of the queries and those of the keys.
    """
    if query.dtype in (torch.float16, torch.bfloat16):
        flash: Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, *cu_seqlens, *longest, 0.0, causal, False, scale=scale,
            window_size_left=None if window == NO_WINDOW else window,
            window_size_right=0 if causal else (None if window == NO_WINDOW else window),
        )[0]  # fmt: skip
        return flash.contiguous()  # it has the query's strides
    if window != NO_WINDOW:
        raise NotImplementedError(
            f"no CUDA kernel for {query.dtype} attention in a window of {window} tokens"
        )
    if key.shape[1] != query.shape[1]:
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    efficient: Tensor = torch.ops.aten._efficient_attention_forward(
        query[None], key[None], value[None], None, *cu_seqlens, *longest, 0.0, int(causal), False, scale=scale
    )[0]
    return efficient[0]


packed_attention.register_fake(like_query)


def packed_attention_forward(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Transformers' attention function: [1, H, T, D] with cu_seq_lens_q for a packed batch, else SDPA's.

    SDPA knows no cap: with one, the scores of a padded batch are written out.
    """
    cu_seqlens = kwargs.get("cu_seq_lens_q")
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    cap, causal = kwargs.get("softcap") or 0.0, bool(getattr(module, "is_causal", False))
    if cu_seqlens is None and cap:
        share = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(share, dim=1) for part in (key, value))
        written = _capped(query, key, value, attention_mask, scale, cap, causal=causal)
        return written.transpose(1, 2).contiguous(), None
    if cu_seqlens is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return padded
    reach = kwargs.get("sliding_window")  # transformers counts the token itself
    out = packed_attention(
        query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), cu_seqlens,
        kwargs["max_length_q"], scale, causal,
        NO_WINDOW if reach is None else reach - 1, cap,
    )  # fmt: skip
    return out[None], None


AttentionInterface.register(PACKED_ATTENTION, packed_attention_forward)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
