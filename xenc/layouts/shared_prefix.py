"""The packed layout after a shared prefix: the prefix that all pairs of a request share is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from ..batching.packed_plan import Budgets, warmup_plans
from ..batching.plan import Plan
from ..batching.prefix_collate import PrefixCollator, PrefixedBatch
from ..batching.prefix_plan import Prefix, SharedPlan, after_prefix, plan_shared, prefix_budgets
from ..compiling.prefix_cache import Compiled, PrefixForward
from ..kernels.prefix_attention import PREFIXED_ATTENTION
from ..models.prefix_forward import classify_after_prefix, read_prefix
from ..text.tokens import PairTokens, TokenizedPairs
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
        return plan_shared(tokens.input_ids, self.budgets, self.read_in, self._packs.unread_id)

    @property
    def read_in(self) -> Budgets:
        """The sizes in which prefixes are read, within the limit."""
        return replace(self._read_in, unfit=self.limit.unread)

    def again(self, pairs: Sequence[PairTokens], plan: SharedPlan, batch_size: int) -> Sequence[SharedPlan]:  # noqa: ARG002
        """See `Layout`. Pairs whose prefix cannot be read are computed whole."""
        prefix, counts = plan.prefix, [len(pair.ids) for pair in pairs]
        if prefix is not None and not self._can_follow(prefix):
            return after_prefix(counts, self.budgets, None, 0)
        shared = 0 if prefix is None else len(prefix.ids)
        if self.budgets.allow(plan.tokens, [max(1, count - shared) for count in counts]):
            return ()
        return after_prefix(counts, self.budgets, prefix, plan.prefix_tokens)

    def _can_follow(self, prefix: Prefix) -> bool:
        size = self._read_in.at_least(len(prefix.ids))
        return self._holds(prefix) or self.read_in.fits(size)

    def _holds(self, prefix: Prefix) -> bool:
        return isinstance(self.forward, PrefixForward) and self.forward.holds(prefix)

    def halve(self, shape: tuple[int, int], *, pairs: int | None = None, prefix: Any = None) -> str | None:
        """See `Layout`. A prefix that could not be read is not shared again."""
        if prefix is None or self._holds(prefix):
            return super().halve(shape, pairs=pairs)
        size = self._read_in.at_least(len(prefix.ids))
        self.limit.unread = min(size, self.limit.unread or size)
        return f"a prefix of {len(prefix.ids):,} tokens"

    def limited(self, shape: tuple[int, int]) -> str:
        """See `Layout`."""
        if self.limit.unread is None:
            return super().limited(shape)
        most = max((size for size in self._read_in.sizes if self.read_in.fits(size)), default=0)
        return (
            f"prefixes of more than {most:,} tokens are computed with each pair, and "
            f"{super().limited(shape)}, share_prefix=False if no prefix fits"
        )

    def every_shape(self, batch_size: int) -> Iterator[PrefixedBatch]:  # noqa: ARG002
        """See `Layout`; before them one batch after a prefix of each size in which prefixes are read."""
        plans = warmup_plans(self._budgets)
        sizes = (prefix.tokens for prefix in warmup_plans(self._read_in))
        prefixes = (
            self.collator.dummy(plans[-1], prefix_tokens=size) for size in sizes if self.read_in.fits(size)
        )
        fitting = (plan for plan in plans if self.budgets.fits(plan.tokens))
        return chain(prefixes, map(self.collator.dummy, fitting))

    queue = Layout.queue  # each request has batches of its own
