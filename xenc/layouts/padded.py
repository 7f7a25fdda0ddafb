"""The padded and the bucketed layout: a fixed count of pairs, padded to the longest or up to a bucket."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..collate import Collator
from ..encoder_decoder.forward import classify_at_eos, score_first_step
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
        return plan_batches(tokens.counts, batch_size=batch_size, sort=execution.sort, buckets=lengths)

    return Layout(
        attention=execution.attention,
        collator=collator,
        forward=compiled or given.running(function, constants),
        compiled=compiled,
        plan=plan,
        warmup_batches=lambda batch_size: map(collator.dummy, warmup_shapes(warm, batch_size)),
        stream=lambda: PlannedStream(plan),
    )
