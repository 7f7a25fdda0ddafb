"""The padded and bucketed layouts: a fixed number of pairs, padded to the longest pair or to a bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..batching.padded_collate import Collator, PaddedBatch
from ..batching.padded_plan import bucket_lengths, plan_batches, rows_within, warmup_shapes
from ..batching.plan import BatchPlan, Plan
from ..compiling.prefix_cache import Compiled
from ..models.encoder_decoder import FirstStepTensors, classify_at_eos, score_first_step
from ..models.families import reads_eos
from ..models.forward import classify
from ..text.tokens import PairTokens, TokenizedPairs
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
        return self._planned(tokens.counts, batch_size)

    def _planned(self, counts: Sequence[int], batch_size: int) -> Plan:
        sort, buckets = self._execution.sort, self._buckets
        return plan_batches(counts, batch_size=batch_size, sort=sort, buckets=buckets, limit=self.limit)

    def every_shape(self, batch_size: int) -> Iterator[PaddedBatch]:
        """See `Layout`; none for padded batches, which can have any shape and are never compiled."""
        for shape in warmup_shapes(self._buckets or (), batch_size):
            rows, length = 0, shape[1]
            while rows != (rows := rows_within(self.limit, batch_size, length)):  # once more if it was halved
                yield self.collator.dummy((rows, length))

    def again(self, pairs: Sequence[PairTokens], plan: BatchPlan, batch_size: int) -> Sequence[Any]:
        """See `Layout`."""
        if plan.batch_size <= rows_within(self.limit, batch_size, plan.length):
            return ()
        return self._planned([len(pair.ids) for pair in pairs], batch_size).batches

    def halve(self, shape: tuple[int, int], *, pairs: int | None = None, prefix: Any = None) -> str | None:  # noqa: ARG002
        """See `Layout`. A batch of one row is not halved."""
        rows, length = shape
        if rows == 1:
            return None
        self.limit.halve(rows * length)
        return self.described(shape)

    def described(self, shape: tuple[int, int]) -> str:
        """See `Layout`."""
        return f"a batch of {shape[0]} x {shape[1]} tokens"

    def limited(self, shape: tuple[int, int]) -> str:
        """See `Layout`. The number of rows is no field of an `Execution`."""
        return (
            f"later ones have at most {self.limit.most:,} tokens, or one pair. To begin with that, call "
            f"warmup and predict with batch_size={shape[0]}"
        )
