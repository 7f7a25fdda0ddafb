"""The packed layout after a shared prefix: what all pairs of a request begin with is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

from ..batching.packed_plan import warmup_plans
from ..batching.plan import Plan
from ..batching.prefix_collate import PrefixCollator, PrefixedBatch
from ..batching.prefix_plan import plan_shared, prefix_budgets
from ..compiling.prefix_cache import CompiledPrefixForward, PrefixForward
from ..compiling.warmup import PreparedForward
from ..compiling.wrapper import CompiledForward
from ..kernels.prefix_attention import PREFIXED_ATTENTION
from ..models.prefix_forward import classify_after_prefix, read_prefix
from ..serving.queue import BatchQueue, RequestQueue
from ..text.tokens import TokenizedPairs
from .base import run_eagerly
from .packed import PackedLayout


class SharedPrefixLayout(PackedLayout):
    """See `Layout`. A request is planned as a whole: its pairs share no batch with another's.

    Raises:
        ExecutionError: token budgets that do not hold max_length; a model that cannot be packed.
    """

    attention = PREFIXED_ATTENTION

    def _make(self, compiled: PreparedForward | None) -> None:
        self._prepare()
        self._read_in = prefix_budgets(self._reranker.max_length)
        self._collates = self.collator = PrefixCollator(packed=self._packs, read_in=self._read_in)
        if self._execution.compile_mode is None:
            self.compiled, self.forward = None, self._eager()
        else:
            self.compiled = self.forward = self._compile(compiled)
            self.compiled.strict = self._execution.strict

    def _eager(self) -> PrefixForward:
        return PrefixForward(
            self._model, lay_out=self._collates.lay_out, max_seqlen=self._reranker.max_length,
            read=partial(run_eagerly, read_prefix, self._model, (self._traits,)),
            classify=partial(run_eagerly, classify_after_prefix, self._model, (self._traits, self._targets)),
        )  # fmt: skip

    def _compile(self, at_hand: PreparedForward | None) -> CompiledPrefixForward:
        """The graphs at hand if their cache has the size of max_length, else new ones."""
        model, execution, max_seqlen = self._model, self._execution, self._reranker.max_length
        if isinstance(at_hand, CompiledPrefixForward) and at_hand.max_seqlen == max_seqlen:
            return at_hand
        constants = (self._traits, self._targets)
        return CompiledPrefixForward(
            model, lay_out=self._collates.lay_out, max_seqlen=max_seqlen,
            read=CompiledForward(read_prefix, model, execution, (self._traits,)),
            classify=CompiledForward(classify_after_prefix, model, execution, constants),
        )  # fmt: skip

    def plan(self, tokens: TokenizedPairs, batch_size: int) -> Plan:  # noqa: ARG002
        """See `Layout`."""
        return plan_shared(tokens.input_ids, self._budgets, self._read_in, self._packs.unread_id)

    def every_shape(self, batch_size: int) -> Iterator[PrefixedBatch]:  # noqa: ARG002
        """See `Layout`; and a batch after a prefix of each size in which prefixes are read."""
        plans = warmup_plans(self._budgets)
        prefixes = (
            self._collates.dummy(plans[-1], prefix_tokens=prefix.tokens)
            for prefix in warmup_plans(self._read_in)
        )
        return chain(map(self._collates.dummy, plans), prefixes)

    def queue(self) -> BatchQueue:
        """A queue in which each request has batches of its own."""
        return RequestQueue(self.plan)
