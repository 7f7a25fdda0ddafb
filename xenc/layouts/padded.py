"""The padded and the bucketed layout: a fixed count of pairs, padded to the longest or up to a bucket."""

from __future__ import annotations

from ..collate import Collator
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
        return plan_batches(tokens.counts, batch_size=batch_size, sort=execution.sort, buckets=lengths)

    return Layout(
        attention=execution.attention,
        collator=collator,
        forward=compiled or given.running(classify),
        compiled=compiled,
        plan=plan,
        warmup_batches=lambda batch_size: map(collator.dummy, warmup_shapes(warm, batch_size)),
        stream=lambda: PlannedStream(plan),
    )
