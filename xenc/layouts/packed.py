"""The packed layout: pairs end to end in a batch of T tokens, with attention within each pair only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch

from ..batching.packed_collate import PackedCollator
from ..batching.packed_plan import FEWEST_PER_SEQUENCE, Budgets, plan_packed, token_budgets, warmup_plans
from ..batching.plan import Plan
from ..compiling.prefix_cache import Compiled
from ..errors import ExecutionError
from ..kernels.packed_attention import PACKED_ATTENTION
from ..models.families import Packable
from ..models.forward import classify_packed
from ..models.positions import position_offset, unnumbered_id
from ..models.relative_attention import distance_buckets
from ..serving.queue import BatchQueue, PackedQueue
from ..text.tokens import PairTokens, TokenizedPairs
from .base import Layout

USUAL_BUDGET: Final = {"cpu": 2048, "cuda": 32_768}
"""Tokens per batch. On a CPU the activations should fit the cache; a GPU needs many tokens to be busy."""

ONE_BUDGET: Final = {"cpu": 2048, "cuda": 16_384}
"""The same where batches have only one size, which small requests then have too."""

TOKENS_PER_SEQUENCE: Final = {"cpu": (FEWEST_PER_SEQUENCE,), "cuda": (FEWEST_PER_SEQUENCE, 64, 128, 256)}
"""On a CPU an empty slot costs almost nothing; on a GPU attention starts as many blocks for it as for a
document."""


class PackedLayout(Layout):
    """See `Layout`.

    Raises:
        ExecutionError: token budgets that do not hold max_length; a model that cannot be packed.
    """

    attention = PACKED_ATTENTION

    def _make(self, compiled: Compiled | None) -> Any:
        self._prepare()
        if compiled is not None:
            return compiled
        relative, body = self._traits.relative, self._model.base_model
        buckets = distance_buckets(body, self._reranker.max_length) if relative else None
        return self._runs(classify_packed, self._traits, self._targets, self._reranker.chain, buckets)

    def _prepare(self) -> None:
        """Set what all packed layouts have: traits, targets, token budgets and the collator."""
        reranker, execution, model = self._reranker, self._execution, self._model
        if not isinstance(reranker.packing, Packable):
            raise ExecutionError(f"layout='packed': {reranker.packing}. Use layout='bucketed'.")
        self._traits = reranker.packing
        if self._traits.relative:
            self.attention = "eager"  # the only one they have; packed, its module is not called
        self._targets = torch.tensor(reranker.targets, device=model.device) if reranker.targets else None
        usual = ONE_BUDGET if execution.deterministic else USUAL_BUDGET
        self._budgets = token_budgets(
            execution.token_budgets, reranker.max_length, usual=usual.get(model.device.type, 2048),
            single=execution.deterministic, tokens_per_sequence=self._tokens_per_sequence(),
        )  # fmt: skip
        text_config: Any = model.config.get_text_config()
        self.collator = self._packs = PackedCollator(
            **self._collating(),
            pooling=self._traits.pooling,
            first_position=position_offset(model),
            unnumbered_id=unnumbered_id(model),
            unread_id=text_config.pad_token_id if self._traits.head == "score" else None,
        )

    def _tokens_per_sequence(self) -> tuple[int, ...]:
        """The device's choices; only the first if batches have one shape, or each number may cost a graph."""
        choices = TOKENS_PER_SEQUENCE.get(self._model.device.type, (FEWEST_PER_SEQUENCE,))
        execution = self._execution
        one_graph = execution.compile_mode is None or execution.dynamic is True
        return choices if one_graph and not execution.deterministic else choices[:1]

    def plan(self, tokens: TokenizedPairs, batch_size: int) -> Plan:  # noqa: ARG002
        """See `Layout`; packed batches have no batch size."""
        return plan_packed([max(1, count) for count in tokens.counts], self.budgets)

    @property
    def budgets(self) -> Budgets:
        """The sizes of batches, within the limit."""
        return self._budgets.within(self.limit)

    def every_shape(self, batch_size: int) -> Iterator[Any]:  # noqa: ARG002
        """See `Layout`."""
        plans = (plan for plan in warmup_plans(self._budgets) if self.budgets.fits(plan.tokens))
        return map(self._packs.dummy, plans)

    def again(self, pairs: Sequence[PairTokens], plan: Any, batch_size: int) -> Sequence[Any]:  # noqa: ARG002
        """See `Layout`; pairs of all requests are packed anew."""
        return ()

    def halve(self, shape: tuple[int, int], *, pairs: int | None = None, prefix: Any = None) -> str | None:  # noqa: ARG002
        """See `Layout`. A pair that was alone needs its size."""
        if shape[0] == self._budgets.sizes[0] or pairs == 1:
            return None
        self.limit.halve(shape[0])
        return self.described(shape)

    def is_unknown(self, shape: tuple[int, int]) -> bool:
        """See `Layout`."""
        compiled = self.compiled
        if compiled is None or not compiled.is_warm or self.budgets.fits(shape[0]):
            return False
        return shape not in compiled.warm_shapes

    def described(self, shape: tuple[int, int]) -> str:
        """See `Layout`."""
        return f"a batch of {shape[0]:,} tokens"

    def limited(self, shape: tuple[int, int]) -> str:  # noqa: ARG002
        """See `Layout`."""
        usual = self.budgets.usual
        return (
            f"later ones have at most {usual:,} tokens, or one pair. To begin with that, use "
            f"Execution(token_budgets={usual})"
        )

    def queue(self) -> BatchQueue:
        """A queue in which requests share batches."""
        return PackedQueue(self._budgets, self.limit)
