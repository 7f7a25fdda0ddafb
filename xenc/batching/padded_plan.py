"""Token counts -> padded and bucketed batches with a fixed number of pairs. Pure integers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from ..errors import ExecutionError
from ..execution import Buckets
from .limit import Limit
from .plan import BatchPlan, Plan

SMALLEST_POWER_OF_TWO: Final = 16


def bucket_lengths(buckets: Buckets, max_length: int) -> tuple[int, ...]:
    """The allowed padded lengths, ascending; the last is max_length.

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
    if isinstance(buckets, int):
        return (*range(buckets, max_length, buckets), max_length)
    powers = (SMALLEST_POWER_OF_TWO << power for power in range(32 if buckets == "powers-of-two" else 0))
    return (*(length for length in powers if length < max_length), max_length)


def rows_within(limit: Limit, batch_size: int, length: int) -> int:
    """The batch size, halved until a batch of this length has at most limit.most tokens; at least 1."""
    while limit.most is not None and batch_size > 1 and batch_size * length > limit.most:
        batch_size //= 2
    return batch_size


def plan_batches(
    counts: Sequence[int], *, batch_size: int, sort: bool, buckets: Sequence[int] | None,
    limit: Limit | None = None,
) -> Plan:  # fmt: skip
    """Group pairs into batches with a fixed number of pairs, or with half of it as often as a limit asks.

    Args:
        counts: [N] token counts.
        batch_size: pairs per batch.
        sort: longest first, ties in the caller's order; otherwise all in the caller's order.
        buckets: allowed padded lengths, ascending; dummy rows fill the last batch. None pads to the longest
            pair of each batch and leaves the last batch short.
        limit: what fits the device's memory; None for everything.
    """
    order = sorted(range(len(counts)), key=lambda row: -counts[row] if sort else row)
    limit = limit or Limit()
    batches: list[BatchPlan] = []
    start = 0
    while start < len(order):
        rows: tuple[int, ...] = ()
        most, length = batch_size, 0
        while not rows or len(rows) > most:  # the longest of fewer rows may be shorter
            rows = tuple(order[start : start + most])
            longest = max(1, *(counts[row] for row in rows))
            length = longest if buckets is None else buckets[bisect_left(buckets, longest)]
            most = rows_within(limit, batch_size, length)
        batches.append(BatchPlan(rows, len(rows) if buckets is None else most, length))
        start += len(rows)
    return Plan(tuple(batches), sum(counts))


def warmup_shapes(buckets: Sequence[int], batch_size: int) -> tuple[tuple[int, int], ...]:
    """Every shape [batch size, length] that a bucketed plan can produce.

    Largest first, so that memory is reserved once, but the first has two different sizes:
    torch.compile(dynamic=True) makes one symbol of two sizes that are equal in the first trace.
    """
    shapes = [(batch_size, length) for length in sorted(buckets, reverse=True)]
    return tuple(sorted(shapes, key=lambda shape: shape[0] == shape[1]))
