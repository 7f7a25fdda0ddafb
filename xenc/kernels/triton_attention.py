# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
"""Packed attention in Triton, for CUDA: documents are concatenated, and each attends only to itself.

A program answers BLOCK_M queries of one head of one document, which it searches for: so there are no programs
for tokens that short documents lack. It passes over the document's keys, BLOCK_N at a time, with a running
maximum (online softmax), and masks only what sticks out of the document, the window or the triangle.

The bits of a document's answer depend on the document and on BLOCK_N, and on nothing else: neither on its
neighbours nor on its place.

Shapes: T = tokens of a batch, N = document slots, H = query heads, K = key and value heads, D = head size.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E: Final = 1.4426950408889634


class Config(NamedTuple):
    """How to launch the kernel.

    Attributes:
        block_m: queries of a program.
        block_n: keys of a step.
        num_warps, num_stages: as Triton has them; a stage is a block of keys and values in shared memory.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def usual_config(size: int) -> Config:
    """Small blocks waste less on short documents.

    Heads of 64 were the fastest so on an H200, of ten configurations, whether documents had 64 tokens or 512.
    Other GPUs and heads were not measured; of heads of 128 a third stage would not fit on all of them.
    """
    return Config(64, 64, 4, 3 if size <= 64 else 2)


_compiled: dict[tuple[object, ...], Any] = {}
"""All that Triton's choice of code depends on -> the code. Triton itself takes longer to find it."""

_MOST_COMPILED: Final = 256


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scale: float, causal: bool, window: int,
    config: Config | None = None,
) -> Tensor:  # fmt: skip
    """softmax(scale x Q K^T) V within each document, forward only; never waits for the device.

    Args:
        query: [T, H, D] in bfloat16 or float16, of any strides of T and H; D is 32, 64 or 128 and contiguous.
        key: [T, K, D], where K divides H; laid out like `query`.
        value: [T, K, D].
        cu_seqlens: int32 [N + 1], ascending from 0; see `packed_attention`.
        scale: positive factor of the scores.
        causal: whether a token attends to none after it.
        window: how many tokens to either side a token attends to; negative for all.
        config: how to launch; None for `usual_config`.

    Returns:
        [T, H, D], contiguous, in query's dtype. Rows of no document are not written.
    """
    (tokens, heads, size), slots = query.shape, cu_seqlens.shape[0] - 1
    how = usual_config(size) if config is None else config
    out = torch.empty((tokens, heads, size), dtype=query.dtype, device=query.device)
    strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2])
    constants = (heads, heads // key.shape[1], size, how.block_m, how.block_n, causal, window >= 0)
    parts = (query, key, value, out, cu_seqlens)
    aligned = [part.data_ptr() % 16 for part in parts]
    known_by = (query.device, query.dtype, cu_seqlens.dtype, *strides, *constants, *aligned, how)
    grid = ((tokens // how.block_m + slots) * heads, 1, 1)
    arguments = (*parts, *strides, scale * LOG2_E, window, slots, *constants)
    with torch.cuda.device_of(query):
        launch(packed_attention_kernel, grid, arguments, known_by, how)
    return out


def launch(
    kernel: Any, grid: tuple[int, int, int], arguments: tuple[Any, ...], known_by: tuple[object, ...],
    how: Config,
) -> None:  # fmt: skip
    """Launch a kernel; `known_by` is all that Triton's choice of its code depends on."""
    known_by = (id(kernel), *known_by)
    code = _compiled.get(known_by)
    if code is not None:
        code[grid](*arguments)
        return
    code = kernel[grid](*arguments, num_warps=how.num_warps, num_stages=how.num_stages)
    if code is not None:  # else this is Triton's interpreter
        if len(_compiled) >= _MOST_COMPILED:
            _compiled.clear()
        _compiled[known_by] = code


@triton.jit
def find_block(cu_seqlens, slots, block, BLOCK_M: tl.constexpr):
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


@triton.jit
def _seen(
    first_row, length, window,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """A block of queries sees keys from `low` to `high`; up to `full` no key needs a mask."""
    low, high = 0, length
    if CAUSAL:
        high = tl.minimum(length, first_row + BLOCK_M)
    if WINDOWED:
        low = tl.maximum(0, first_row - window) // BLOCK_N * BLOCK_N
        high = tl.minimum(high, first_row + BLOCK_M + window)
        full = low
    else:
        full = (tl.minimum(length, first_row + 1) if CAUSAL else length) // BLOCK_N * BLOCK_N
    return low, full, high


@triton.jit(do_not_specialize=["window", "slots"], do_not_specialize_on_alignment=["cu_seqlens"])
def packed_attention_kernel(
    query, key, value, out, cu_seqlens, query_row, query_head, key_row, key_head, value_row, value_head,
    scale, window, slots,
    HEADS: tl.constexpr, SHARE: tl.constexpr, SIZE: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """Programs of one block of queries stand side by side, head by head."""
    head = tl.program_id(0) % HEADS
    document, block = find_block(cu_seqlens, slots, tl.program_id(0) // HEADS, BLOCK_M)
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
    low, full, high = _seen(first_row, length, window, BLOCK_M, BLOCK_N, CAUSAL, WINDOWED)
    for first in tl.range(low, full, BLOCK_N):
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
