"""The padded and the bucketed layout: a fixed count of pairs, padded to the longest or up to a bucket."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ..collate import Collator
from ..encoder_decoder.forward import classify_at_eos, score_first_step
from ..execution import Execution
from ..families import reads_eos
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
    at_eos = given.asked is None and reads_eos(given.model)
    collator = Collator(**given.collating(), required_id=given.model.config.eos_token_id if at_eos else None)
    function: Callable[..., Tensor] = classify_at_eos if at_eos else classify
    constants: tuple[object, ...] = ()
    if given.asked is not None:
        function, constants = score_first_step, (given.asked,)
    compiled = given.compiling(function, constants)
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
        forward=compiled or given.running(function, constants),
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
