"""Packed attention in Triton: documents are concatenated, and each attends only to itself.

A program answers BLOCK_M queries of one head of one document. It passes over the document's keys, BLOCK_N at
a time, with a running maximum (online softmax), and masks only what sticks out of the document, the window or
the triangle. If no document has more than BLOCK_N tokens, there is no loop.

The bits of a document's answer depend on the document and on BLOCK_N, and on nothing else: not on its
neighbours, its place, BLOCK_M, nor on how programs find their documents.

Shapes: T = tokens of a batch, N = document slots, H = query heads, K = key and value heads, D = head size.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from perf_tests.hopper.candidates.attention_config import CONFIGS, SHORT_CONFIGS, Config, default_config

__all__ = ["CONFIGS", "NO_WINDOW", "SHORT_CONFIGS", "Config", "default_config", "varlen_attention"]

NO_WINDOW = -1

LOG2_E = 1.4426950408889634


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float,
    causal: bool = False, window: int = NO_WINDOW, config: Config | None = None,
) -> Tensor:  # fmt: skip
    """softmax(scale x Q K^T) V within each document, forward only.

    Args:
        query: [T, H, D] in bfloat16 or float16, of any strides of T and H; D is 32, 64 or 128 and contiguous.
        key: [T, K, D], where K divides H; laid out like `query`.
        value: [T, K, D].
        cu_seqlens: int32 [N + 1], ascending from 0: document i is tokens cu_seqlens[i] to cu_seqlens[i + 1].
            Slots without a document repeat T.
        max_seqlen: upper bound of the documents' lengths.
        scale: positive factor of the scores.
        causal: whether a token attends to none after it.
        window: how many tokens to either side a token attends to, or NO_WINDOW.
        config: how to launch; None for `default_config`.

    Returns:
        [T, H, D], contiguous, in query's dtype. Rows of no document are not written.
    """
    (tokens, heads, size), key_heads, slots = query.shape, key.shape[1], cu_seqlens.shape[0] - 1
    if size not in (32, 64, 128) or heads % key_heads or scale <= 0:
        raise ValueError(f"heads of {size}, {heads} of {key_heads}, scale {scale}")
    if not query.stride(2) == key.stride(2) == value.stride(2) == 1:
        raise ValueError("the elements of a head must be contiguous")
    how = default_config(max_seqlen) if config is None else config
    out = torch.empty((tokens, heads, size), dtype=query.dtype, device=query.device)
    if how.search:
        grid = ((tokens // how.block_m + slots) * heads, 1, 1)
    else:
        grid = (triton.cdiv(max_seqlen, how.block_m), heads, slots)
    _attention[grid](
        query, key, value, out, cu_seqlens, query.stride(0), query.stride(1), key.stride(0), key.stride(1),
        value.stride(0), value.stride(1), scale * LOG2_E, window, slots,
        HEADS=heads, SHARE=heads // key_heads, SIZE=size, BLOCK_M=how.block_m, BLOCK_N=how.block_n,
        CAUSAL=causal, WINDOWED=window != NO_WINDOW, SINGLE=max_seqlen <= how.block_n, PEEL=how.peel,
        SEARCH=how.search, num_warps=how.num_warps, num_stages=how.num_stages,
    )  # fmt: skip
    return out


@triton.jit
def _find_block(cu_seqlens, slots, block, BLOCK_M: tl.constexpr):
    """A block's document, and its number within the document.

    Document i owns the blocks from cu_seqlens[i] // BLOCK_M + i on: at least as many as it needs.
    """
    found = 0
    for first in range(0, slots, 256):
        slot = first + tl.arange(0, 256)
        start = tl.load(cu_seqlens + slot, mask=slot < slots, other=0)
        owns = (slot < slots) & (start // BLOCK_M + slot <= block)
        found += tl.sum(owns.to(tl.int32), axis=0)
    document = found - 1
    return document, block - tl.load(cu_seqlens + document) // BLOCK_M - document


@triton.jit
def _masked(scores, rows, columns, length, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    seen = columns[None, :] < length
    if CAUSAL:
        seen = seen & (columns[None, :] <= rows[:, None])
    if WINDOWED:
        ahead = columns[None, :] - rows[:, None]
        seen = seen & (ahead >= -window) & (ahead <= window)
    return tl.where(seen, scores, -1.0e30)  # not infinity: a row may see nothing of a block


@triton.jit
def _step(
    q, key, value, key_row, value_row, first, rows, length, scale, window, acc, total, top,
    SIZE: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """One block of keys and values; `first` is its first token."""
    columns, lanes = first + tl.arange(0, BLOCK_N), tl.arange(0, SIZE)
    keys = key + columns[:, None] * key_row + lanes[None, :]
    values = value + columns[:, None] * value_row + lanes[None, :]
    if MASKED:
        k = tl.load(keys, mask=columns[:, None] < length, other=0.0)
        v = tl.load(values, mask=columns[:, None] < length, other=0.0)
    else:
        k = tl.load(keys)
        v = tl.load(values)
    scores = tl.dot(q, tl.trans(k))
    if MASKED:
        scores = _masked(scores, rows, columns, length, window, CAUSAL, WINDOWED)
    now = tl.maximum(top, tl.max(scores, axis=1) * scale)
    weights = tl.math.exp2(scores * scale - now[:, None])
    fade = tl.math.exp2(top - now)
    acc = tl.dot(weights.to(v.dtype), v, acc * fade[:, None])
    return acc, total * fade + tl.sum(weights, axis=1), now


@triton.jit(do_not_specialize=["window", "slots"], do_not_specialize_on_alignment=["cu_seqlens"])
def _attention(
    query, key, value, out, cu_seqlens, query_row, query_head, key_row, key_head, value_row, value_head,
    scale, window, slots,
    HEADS: tl.constexpr, SHARE: tl.constexpr, SIZE: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, SINGLE: tl.constexpr,
    PEEL: tl.constexpr, SEARCH: tl.constexpr,
):  # fmt: skip
    if SEARCH:
        head = tl.program_id(0) % HEADS
        document, block = _find_block(cu_seqlens, slots, tl.program_id(0) // HEADS, BLOCK_M)
    else:
        block, head, document = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start = tl.load(cu_seqlens + document)
    length = tl.load(cu_seqlens + document + 1) - start
    first_row = block * BLOCK_M
    if first_row >= length:
        return
    start, head = start.to(tl.int64), head.to(tl.int64)
    key += start * key_row + head // SHARE * key_head
    value += start * value_row + head // SHARE * value_head
    rows, lanes = first_row + tl.arange(0, BLOCK_M), tl.arange(0, SIZE)
    inside = rows[:, None] < length
    query += start * query_row + head * query_head
    q = tl.load(query + rows[:, None] * query_row + lanes[None, :], mask=inside, other=0.0)

    acc = tl.zeros([BLOCK_M, SIZE], dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    if SINGLE:
        acc, total, top = _step(
            q, key, value, key_row, value_row, 0, rows, length, scale, window, acc, total, top,
            SIZE, BLOCK_N, CAUSAL, WINDOWED, True,
        )  # fmt: skip
    else:
        low, high = 0, length
        if CAUSAL:
            high = tl.minimum(length, first_row + BLOCK_M)
        if WINDOWED:
            low = tl.maximum(0, first_row - window) // BLOCK_N * BLOCK_N
            high = tl.minimum(high, first_row + BLOCK_M + window)
        full = low
        if PEEL and not WINDOWED:
            full = (tl.minimum(length, first_row + 1) if CAUSAL else length) // BLOCK_N * BLOCK_N
            for first in tl.range(0, full, BLOCK_N):
                acc, total, top = _step(
                    q, key, value, key_row, value_row, first, rows, length, scale, window, acc, total, top,
                    SIZE, BLOCK_N, CAUSAL, WINDOWED, False,
                )  # fmt: skip
        for first in tl.range(full, high, BLOCK_N):
            acc, total, top = _step(
                q, key, value, key_row, value_row, first, rows, length, scale, window, acc, total, top,
                SIZE, BLOCK_N, CAUSAL, WINDOWED, True,
            )  # fmt: skip
    out += (start * HEADS + head) * SIZE
    answer = (acc * (1.0 / total)[:, None]).to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * (HEADS * SIZE) + lanes[None, :], answer, mask=inside)
