# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
"""Packed attention with a bias by distance in Triton, for CUDA: see `biased_attention`.

Programs are as in `triton_attention`: BLOCK queries of one head of one document each. The terms of the bias
(DeBERTa's, https://arxiv.org/abs/2006.03654, section 3.1) are computed inside, for the distances that a step
meets. Between BLOCK queries and BLOCK keys there are 2 BLOCK - 1 distances, in two runs of BLOCK. At a place
of a run each query (c2p), or each key (p2c), needs the earlier or the later run and never both. So both runs
become one tile, [BLOCK, BLOCK], whose rows or columns are then rotated into place. The later run of a step is
the earlier one of the next: products with queries are kept, those with keys are computed for both runs.

The limit, by arithmetic: 5/2 of plain attention's FLOPs. For T = 32,768 tokens in documents of 512, H = 12
and D = 64 these are 129 GFLOP in a layer, 0.13 ms at 989 TFLOP/s. Device memory moves what plain attention
moves: 0.2 GB, 0.05 ms at 4.2 TB/s. The caches send five tiles in a step for two, and a tile that is rotated
passes through shared memory twice and through shuffles. The other way would be products of all tokens with
all P = 512 buckets by cuBLAS: about as many FLOPs (52 GFLOP beside plain attention's 52), but 0.8 GB of
memory, which is written whatever the lengths are and of which up to as much is read again, 0.2 to 0.4 ms in a
layer; and short documents need few of the buckets.

Shapes: T = tokens of a batch, N = document slots, H = heads, D = head size, P = buckets, R = the farthest
distance that has one.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_attention import LOG2_E, Config, find_block, launch


def usual_biased_config(size: int, capability: tuple[int, int]) -> Config:
    """The largest tiles that no registers are spilled for, as compiled; no GPU has measured them."""
    return Config(64, 64, 8, 2) if capability >= (9, 0) and size <= 64 else Config(32, 32, 4, 2)


@cache
def _config_on(device: torch.device, size: int) -> Config:
    return usual_biased_config(size, torch.cuda.get_device_capability(device))


def biased_varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scale: float,
    buckets: Tensor, of_bucket: Tensor | None, bucket_keys: Tensor | None, bucket_queries: Tensor | None,
    config: Config | None = None,
) -> Tensor:  # fmt: skip
    """`biased_attention`, forward only; never waits for the device, so buckets are not checked.

    Args:
        query: [T, H, D] in bfloat16 or float16, of any strides of T and H; D is 32, 64 or 128 and contiguous.
        key, value: [T, H, D], laid out like `query`.
        cu_seqlens: int32 [N + 1], ascending from 0; see `packed_attention`.
        scale: positive factor of the scores.
        buckets: int32 [2 R + 1]; a distance beyond R gains nothing.
        of_bucket: float32 [H, P] or None.
        bucket_keys, bucket_queries: [P, H, D], in query's dtype, or None.
        config: how to launch, with as many queries as keys; None for `usual_biased_config`.

    Returns:
        [T, H, D], contiguous, in query's dtype. Rows of no document are not written.
    """
    (tokens, heads, size), slots, reach = query.shape, cu_seqlens.shape[0] - 1, buckets.shape[0] // 2
    how = _config_on(query.device, size) if config is None else config
    out = torch.empty((tokens, heads, size), dtype=query.dtype, device=query.device)
    by_distance = (
        None if of_bucket is None else of_bucket.index_select(1, buckets),
        *(None if part is None else part.index_select(0, buckets) for part in (bucket_keys, bucket_queries)),
    )
    terms = tuple(part is not None for part in by_distance)
    strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2])
    constants = (heads, size, how.block_m, *terms)
    parts = (query, key, value, *(query if part is None else part for part in by_distance), out, cu_seqlens)
    aligned = [part.data_ptr() % 16 for part in parts]
    known_by = (query.device, query.dtype, cu_seqlens.dtype, *strides, *constants, *aligned, how)
    grid = ((tokens // how.block_m + slots) * heads, 1, 1)
    arguments = (*parts, *strides, scale * LOG2_E, LOG2_E, reach, slots, *constants)
    with torch.cuda.device_of(query):
        launch(biased_attention_kernel, grid, arguments, known_by, how)
    return out


@triton.jit
def _run(table, first, reach, lanes, ROW: tl.constexpr, BLOCK: tl.constexpr):
    """The rows of BLOCK distances from `first` on, and 0 for those that the table does not have."""
    at = first + reach + tl.arange(0, BLOCK)
    there = (at >= 0) & (at <= 2 * reach)
    return tl.load(table + at[:, None] * ROW + lanes[None, :], mask=there[:, None], other=0.0)


@triton.jit
def _step(
    q, earlier, key, value, numbers, keys, queries, key_row, value_row, first_row, first, length, reach,
    scale, number_scale, acc, total, top,
    ROW: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, NUMBERS: tl.constexpr, KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
):  # fmt: skip
    """One block of keys. `earlier`: products of the queries with the run before the step's own."""
    near, lanes = tl.arange(0, BLOCK), tl.arange(0, SIZE)
    columns, run = first + near, first - first_row
    inside = columns[:, None] < length
    k = tl.load(key + columns[:, None] * key_row + lanes[None, :], mask=inside, other=0.0)
    v = tl.load(value + columns[:, None] * value_row + lanes[None, :], mask=inside, other=0.0)
    ahead = run + near[None, :] - near[:, None]
    place = ahead & (BLOCK - 1)  # the same in each step; what is known to be so is held in registers
    scores = tl.zeros([BLOCK, BLOCK], dtype=tl.float32)
    if QUERIES:
        before = tl.dot(_run(queries, run - BLOCK, reach, lanes, ROW, BLOCK), tl.trans(k))
        behind = tl.dot(_run(queries, run, reach, lanes, ROW, BLOCK), tl.trans(k))
        scores += tl.gather(tl.where(near[:, None] <= near[None, :], behind, before), place, 0)
    if KEYS:
        later = tl.dot(q, tl.trans(_run(keys, run, reach, lanes, ROW, BLOCK)))
        scores += tl.gather(tl.where(near[:, None] + near[None, :] < BLOCK, later, earlier), place, 1)
        earlier = later
    scores = tl.dot(q, tl.trans(k), scores) * scale
    if NUMBERS:
        at = ahead + reach
        scores += tl.load(numbers + at, mask=(at >= 0) & (at <= 2 * reach), other=0.0) * number_scale
    scores = tl.where(columns[None, :] < length, scores, -1.0e30)
    now = tl.maximum(top, tl.max(scores, axis=1))
    weights = tl.math.exp2(scores - now[:, None])
    fade = tl.math.exp2(top - now)
    acc = tl.dot(weights.to(v.dtype), v, acc * fade[:, None])
    return earlier, acc, total * fade + tl.sum(weights, axis=1), now


@triton.jit(do_not_specialize=["reach", "slots"], do_not_specialize_on_alignment=["cu_seqlens"])
def biased_attention_kernel(
    query, key, value, numbers, keys, queries, out, cu_seqlens,
    query_row, query_head, key_row, key_head, value_row, value_head, scale, number_scale, reach, slots,
    HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, NUMBERS: tl.constexpr, KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
):  # fmt: skip
    """Programs of one block of queries stand side by side, head by head.

    `numbers` are [H, 2 R + 1], `keys` and `queries` [2 R + 1, H, D]: of each distance from -R to R.
    """
    head = tl.program_id(0) % HEADS
    document, block = find_block(cu_seqlens, slots, tl.program_id(0) // HEADS, BLOCK)
    start = tl.load(cu_seqlens + document)
    length = tl.load(cu_seqlens + document + 1) - start
    first_row = block * BLOCK
    if first_row >= length:
        return
    start, head = start.to(tl.int64), head.to(tl.int64)
    key += start * key_row + head * key_head
    value += start * value_row + head * value_head
    numbers += head * (2 * reach + 1)
    keys += head * SIZE
    queries += head * SIZE
    rows, lanes = first_row + tl.arange(0, BLOCK), tl.arange(0, SIZE)
    inside = rows[:, None] < length
    query += start * query_row + head * query_head
    q = tl.load(query + rows[:, None] * query_row + lanes[None, :], mask=inside, other=0.0)
    acc = tl.zeros([BLOCK, SIZE], dtype=tl.float32)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    top = tl.full([BLOCK], float("-inf"), dtype=tl.float32)
    earlier = total
    if KEYS:
        earlier = tl.dot(q, tl.trans(_run(keys, -first_row - BLOCK, reach, lanes, HEADS * SIZE, BLOCK)))
    for first in tl.range(0, length, BLOCK):
        earlier, acc, total, top = _step(
            q, earlier, key, value, numbers, keys, queries, key_row, value_row, first_row, first, length,
            reach, scale, number_scale, acc, total, top,
            HEADS * SIZE, SIZE, BLOCK, NUMBERS, KEYS, QUERIES,
        )  # fmt: skip
    out += (start * HEADS + head) * SIZE
    answer = (acc * (1.0 / total)[:, None]).to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * (HEADS * SIZE) + lanes[None, :], answer, mask=inside)
