"""The packed layout after a shared prefix: what all pairs of a request begin with is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ..compiled import CompiledForward
from ..errors import ExecutionError
from ..families import unshareable
from ..packing import warmup_plans
from ..plan import Plan
from ..prefix.attention import PREFIXED_ATTENTION
from ..prefix.cache import CompiledPrefixForward, PrefixForward
from ..prefix.collate import PrefixCollator, PrefixedBatch
from ..prefix.common import plan_shared, prefix_budgets
from ..prefix.forward import classify_after_prefix, read_prefix
from ..stream import PlannedStream
from ..tokens import TokenizedPairs
from .layout import Given, Layout
from .packed import PackedParts, packed_parts


def shared_prefix(given: Given) -> Layout:
    """The stages of a packed execution that shares prefixes.

    Each request is read as a whole and planned by itself: its pairs share no batch with another's.

    Raises:
        ExecutionError: token budgets that do not hold max_length; a model that cannot share a prefix.
    """
    reason = unshareable(given.model)
    if reason is not None:
        raise ExecutionError(f"share_prefix=True: {reason}. Use share_prefix=False.")
    parts = packed_parts(given)
    read_in = prefix_budgets(given.max_length)
    collator = PrefixCollator(packed=parts.collator, read_in=read_in)
    forward = _forward(given, parts, collator)

    def plan(tokens: TokenizedPairs, _: int) -> Plan:
        return plan_shared(tokens.input_ids, parts.budgets, read_in, parts.collator.unread_id)

    def warmup_batches(_: int) -> Iterator[PrefixedBatch]:
        plans = warmup_plans(parts.budgets)
        prefixes = (
            collator.dummy(plans[-1], prefix_tokens=prefix.tokens) for prefix in warmup_plans(read_in)
        )
        return chain(map(collator.dummy, plans), prefixes)

    return Layout(
        attention=PREFIXED_ATTENTION,
        collator=collator,
        forward=forward,
        compiled=forward if isinstance(forward, CompiledPrefixForward) else None,
        plan=plan,
        warmup_batches=warmup_batches,
        stream=lambda: PlannedStream(plan),
    )


def _forward(given: Given, parts: PackedParts, collator: PrefixCollator) -> PrefixForward:
    """Graphs at hand if the cache has their size, else new ones; or the functions as they are."""
    model, execution, at_hand = given.model, given.execution, given.compiled
    reading = (parts.traits,)
    if execution.compile_mode is None:
        return PrefixForward(
            model, lay_out=collator.lay_out, max_tokens=given.max_length,
            read=given.running(read_prefix, reading),
            classify=given.running(classify_after_prefix, parts.constants),
        )  # fmt: skip
    if not isinstance(at_hand, CompiledPrefixForward) or at_hand.max_tokens != given.max_length:
        at_hand = CompiledPrefixForward(
            model, lay_out=collator.lay_out, max_tokens=given.max_length,
            read=CompiledForward(read_prefix, model, execution, reading),
            classify=CompiledForward(classify_after_prefix, model, execution, parts.constants),
        )  # fmt: skip
    at_hand.strict = execution.strict
    return at_hand
