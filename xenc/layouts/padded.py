"""The padded and the bucketed layout: a fixed count of pairs, padded to the longest or up to a bucket."""

from __future__ import annotations

from collections.abc import Sequence

from ..collate import Collator
from ..execution import Execution
from ..forward import classify
from ..plan import Plan, bucket_lengths, plan_batches, warmup_shapes
from ..stream import PlannedStream
from ..tokens import TokenizedPairs
from .layout import Given, Layout


def padded(given: Given) -> Layout:
    """The stages of a padded or bucketed execution.

    Raises:
        ExecutionError: buckets that do not hold max_length.
    """
    execution = given.execution
    buckets = bucket_lengths(execution.buckets, given.max_length)
    collator = Collator(**given.collating())
    compiled = given.compiling(classify)
    warm = buckets if execution.layout == "bucketed" else ()  # padded batches have any length

    def plan(tokens: TokenizedPairs, batch_size: int) -> Plan:
        lengths = buckets if execution.layout == "bucketed" else None
        return plan_batches(
            tokens.counts, batch_size=batch_size, sort=execution.sort, buckets=lengths, fill=execution.fill
        )

    def shapes(batch_size: int) -> tuple[tuple[int, int], ...]:
        return warmup_shapes(warm, _batch_sizes(execution, batch_size))

    return Layout(
        attention=execution.attention,
        collator=collator,
        forward=compiled or given.running(classify),
        compiled=compiled,
        plan=plan,
        warmup_batches=lambda batch_size: map(collator.dummy, shapes(batch_size)),
        stream=lambda: PlannedStream(plan),
    )


def _batch_sizes(execution: Execution, batch_size: int) -> Sequence[int]:
    """The numbers of rows to warm up: that of all batches, or where short ones stay short enough for any.

    A graph of dynamic sizes takes every number but 1, which is always compiled by itself; CUDA graphs are
    recorded for each number, and so are graphs of static sizes compiled.
    """
    if execution.fill:
        return (batch_size,)
    if execution.dynamic and execution.compile_mode in ("default", "max-autotune-no-cudagraphs"):
        return sorted({1, batch_size})
    return range(1, batch_size + 1)
