"""The padded and bucketed layouts: a fixed number of pairs, padded to the longest pair or to a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..batching.padded_collate import Collator, PaddedBatch
from ..batching.padded_plan import bucket_lengths, plan_batches, warmup_shapes
from ..batching.plan import Plan
from ..compiling.prefix_cache import Compiled
from ..models.encoder_decoder import FirstStepTensors, classify_at_eos, score_first_step
from ..models.families import reads_eos
from ..models.forward import classify
from ..text.tokens import TokenizedPairs
from .base import Layout


class PaddedLayout(Layout):
    """See `Layout`.

    Raises:
        ExecutionError: buckets that do not hold max_length.
    """

    def _make(self, compiled: Compiled | None) -> Any:
        reranker, execution = self._reranker, self._execution
        lengths = bucket_lengths(execution.buckets, reranker.max_length)
        self._buckets = lengths if execution.layout == "bucketed" else None
        first_step = reranker.first_step_ids
        at_eos = first_step is None and reads_eos(self._model)
        self.attention = execution.attention
        self.collator = Collator(
            **self._collating(), required_id=self._model.config.eos_token_id if at_eos else None
        )
        if first_step is not None:
            return compiled or self._runs(score_first_step, FirstStepTensors(first_step, self._model))
        if at_eos:
            return compiled or self._runs(classify_at_eos)
        return compiled or self._runs(classify, reranker.chain)

    def plan(self, tokens: TokenizedPairs, batch_size: int) -> Plan:
        """See `Layout`."""
        sort = self._execution.sort
        return plan_batches(tokens.counts, batch_size=batch_size, sort=sort, buckets=self._buckets)

    def every_shape(self, batch_size: int) -> Iterator[PaddedBatch]:
        """See `Layout`; none for padded batches, which can have any shape and are never compiled."""
        return map(self.collator.dummy, warmup_shapes(self._buckets or (), batch_size))
