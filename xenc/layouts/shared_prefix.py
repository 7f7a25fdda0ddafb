"""The packed layout after a shared prefix: the prefix that all pairs of a request share is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from ..batching.packed_plan import warmup_plans
from ..batching.plan import Plan
from ..batching.prefix_collate import PrefixCollator, PrefixedBatch
from ..batching.prefix_plan import plan_shared, prefix_budgets
from ..compiling.prefix_cache import Compiled, PrefixForward
from ..kernels.prefix_attention import PREFIXED_ATTENTION
from ..models.prefix_forward import classify_after_prefix, read_prefix
from ..text.tokens import TokenizedPairs
from .base import Layout
from .packed import PackedLayout


class SharedPrefixLayout(PackedLayout):
    """See `Layout`. Each request is planned as a whole and has batches of its own.

    Raises:
        ExecutionError: token budgets that do not hold max_length; a model that cannot be packed.
    """

    attention = PREFIXED_ATTENTION

    def _make(self, compiled: Compiled | None) -> Any:
        self._prepare()
        self._read_in = prefix_budgets(self._reranker.max_length)
        self.collator = PrefixCollator(packed=self._packs, read_in=self._read_in)
        max_seqlen = self._reranker.max_length
        if isinstance(compiled, PrefixForward) and compiled.max_seqlen == max_seqlen:
            return compiled
        return PrefixForward(
            self._model, lay_out=self.collator.lay_out, max_seqlen=max_seqlen,
            read=self._runs(read_prefix, self._traits),
            classify=self._runs(classify_after_prefix, self._traits, self._targets),
        )  # fmt: skip

    def plan(self, tokens: TokenizedPairs, batch_size: int) -> Plan:  # noqa: ARG002
        """See `Layout`."""
        return plan_shared(tokens.input_ids, self._budgets, self._read_in, self._packs.unread_id)

    def every_shape(self, batch_size: int) -> Iterator[PrefixedBatch]:  # noqa: ARG002
        """See `Layout`; and one batch after a prefix of each size in which prefixes are read."""
        plans = warmup_plans(self._budgets)
        sizes = [prefix.tokens for prefix in warmup_plans(self._read_in)]
        prefixes = (self.collator.dummy(plans[-1], prefix_tokens=size) for size in sizes)
        return chain(map(self.collator.dummy, plans), prefixes)

    queue = Layout.queue  # each request has batches of its own
