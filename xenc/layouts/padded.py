"""The padded and the bucketed layout: a fixed count of pairs, padded to the longest or up to a bucket."""

from __future__ import annotations

from collections.abc import Iterator

from ..batching.padded_collate import Collator, PaddedBatch
from ..batching.padded_plan import bucket_lengths, plan_batches, warmup_shapes
from ..batching.plan import Plan
from ..compiling.warmup import PreparedForward
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

    def _make(self, compiled: PreparedForward | None) -> None:
        reranker, execution = self._reranker, self._execution
        self._buckets = bucket_lengths(execution.buckets, reranker.max_length)
        first_step = reranker.first_step_ids
        at_eos = first_step is None and reads_eos(self._model)
        self.attention = execution.attention
        self.collator = Collator(
            **self._collating(), required_id=self._model.config.eos_token_id if at_eos else None
        )
        if first_step is not None:
            self._run(score_first_step, (FirstStepTensors(first_step, self._model),), compiled)
        else:
            self._run(classify_at_eos if at_eos else classify, (), compiled)

    def plan(self, tokens: TokenizedPairs, batch_size: int) -> Plan:
        """See `Layout`."""
        buckets = self._buckets if self._execution.layout == "bucketed" else None
        return plan_batches(tokens.counts, batch_size=batch_size, sort=self._execution.sort, buckets=buckets)

    def every_shape(self, batch_size: int) -> Iterator[PaddedBatch]:
        """See `Layout`; padded batches, which are never compiled, have any shape: none is made of them."""
        buckets = self._buckets if self._execution.layout == "bucketed" else ()
        return map(self.collator.dummy, warmup_shapes(buckets, batch_size))
