"""Token counts -> padded and bucketed batches of a fixed count of pairs. Pure integers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from ..errors import ExecutionError
from ..execution import Buckets
from .plan import BatchPlan, Plan

SMALLEST_POWER_OF_TWO: Final = 16


def bucket_lengths(buckets: Buckets, max_length: int) -> tuple[int, ...]:
    """The allowed padded lengths up to max_length, ascending; the last is at least max_length.

    Raises:
        ExecutionError: explicit buckets that end below max_length, so that a long pair would fit none.
    """
    if isinstance(buckets, tuple):
        if buckets[-1] < max_length:
            raise ExecutionError(
                f"buckets={buckets!r} end below max_length={max_length}: a pair of {max_length} tokens "
                f"would fit none. Add {max_length}, or lower max_length to {buckets[-1]}."
            )
        return (*buckets[: bisect_left(buckets, max_length)], max_length)
    lengths: list[int] = []
    if buckets == "max-length":
        return (max_length,)
    if isinstance(buckets, int):
        lengths.extend(range(buckets, max_length, buckets))
    else:
        length = SMALLEST_POWER_OF_TWO
        while length < max_length:
            lengths.append(length)
            length *= 2
    return (*lengths, max_length)


def plan_batches(
    counts: Sequence[int], *, batch_size: int, sort: bool, buckets: Sequence[int] | None
) -> Plan:
    """Group pairs into batches of a fixed count.

    Args:
        counts: [N] true token counts.
        batch_size: pairs per batch.
        sort: longest first, ties in the caller's order; otherwise the caller's order as it is.
        buckets: allowed padded lengths, ascending, of batches that all have batch_size rows, dummy rows among
            them; None pads to the longest pair of each batch and leaves the last batch short.
    """
    order = range(len(counts))
    rows_in_order = sorted(order, key=lambda row: -counts[row]) if sort else list(order)
    batches = []
    for start in range(0, len(counts), batch_size):
        rows = tuple(rows_in_order[start : start + batch_size])
        longest = max(1, *(counts[row] for row in rows))
        if buckets is None:
            batches.append(BatchPlan(rows, len(rows), longest))
        else:
            batches.append(BatchPlan(rows, batch_size, buckets[bisect_left(buckets, longest)]))
    return Plan(tuple(batches), sum(counts))


def warmup_shapes(buckets: Sequence[int], batch_size: int) -> tuple[tuple[int, int], ...]:
    """Every shape [batch size, length] that a bucketed plan can produce.

    Largest first, so that memory is reserved once, and starting with one whose two sizes differ:
    torch.compile(dynamic=True) ties two sizes together that are equal when it first traces them.
    """
    shapes = [(batch_size, length) for length in sorted(buckets, reverse=True)]
    return tuple(sorted(shapes, key=lambda shape: shape[0] == shape[1]))
