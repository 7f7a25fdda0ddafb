"""The packed layout: pairs end to end in a batch of exactly T tokens, attention confined to each pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ..attention import PACKED_ATTENTION
from ..errors import ExecutionError
from ..families import Packable, packable, position_offset, unnumbered_id
from ..forward import classify_packed
from ..packed_collate import PackedCollator
from ..packing import FEWEST_PER_SLOT, Budgets, plan_packed, token_budgets, warmup_plans
from ..stream import PackedStream
from .layout import Given, Layout

USUAL_BUDGET: Final = {"cpu": 2048, "cuda": 16_384}
"""Tokens. On a CPU a batch's activations should fit its cache; a GPU needs many to be busy."""

TOKENS_PER_SLOT: Final = {"cpu": (FEWEST_PER_SLOT,), "cuda": (FEWEST_PER_SLOT, 64, 128, 256)}
"""On a CPU an empty slot costs next to nothing, on a GPU attention starts as many blocks for it as for any
other."""


@dataclass(frozen=True, kw_only=True)
class PackedParts:
    """What every packed layout of a model is made from.

    Attributes:
        traits: the family's.
        budgets: the sizes of batches.
        collator: lays them out.
        targets: int64 [1] or [2], the token ids that a "vocabulary" head compares.
    """

    traits: Packable
    budgets: Budgets
    collator: PackedCollator
    targets: Tensor | None

    @property
    def constants(self) -> tuple[object, ...]:
        """What a packed forward takes last."""
        return self.traits, self.targets


def packed_parts(given: Given) -> PackedParts:
    """The parts for a model.

    Raises:
        ExecutionError: token budgets that do not hold max_length; a model that cannot be packed.
    """
    model, execution, max_length = given.model, given.execution, given.max_length
    traits = packable(model)
    if not isinstance(traits, Packable):
        raise ExecutionError(f"layout='packed': {traits}. Use layout='bucketed'.")
    budgets = token_budgets(
        execution.token_budgets, max_length, usual=USUAL_BUDGET.get(model.device.type, 2048),
        single=execution.deterministic, tokens_per_slot=_tokens_per_slot(given),
    )  # fmt: skip
    collator = PackedCollator(
        **given.collating(),
        pooling=traits.pooling,
        first_position=position_offset(model.config),
        unnumbered_id=unnumbered_id(model.config),
        unread_id=model.config.get_text_config().pad_token_id if traits.head == "score" else None,
    )
    targets = torch.tensor(given.targets, device=model.device) if given.targets else None
    return PackedParts(traits=traits, budgets=budgets, collator=collator, targets=targets)


def _tokens_per_slot(given: Given) -> tuple[int, ...]:
    """The device's choices; the first alone where one shape is asked for, or each might cost a graph."""
    choices = TOKENS_PER_SLOT.get(given.model.device.type, (FEWEST_PER_SLOT,))
    execution = given.execution
    one_graph = execution.compile_mode is None or execution.dynamic is True
    return choices if one_graph and not execution.deterministic else choices[:1]


def packed(given: Given) -> Layout:
    """The stages of a packed execution.

    Raises:
        ExecutionError: token budgets that do not hold max_length; a model that cannot be packed.
    """
    parts = packed_parts(given)
    compiled = given.compiling(classify_packed, parts.constants)
    return Layout(
        attention=PACKED_ATTENTION,
        collator=parts.collator,
        forward=compiled or given.running(classify_packed, parts.constants),
        compiled=compiled,
        plan=lambda tokens, _: plan_packed([max(1, count) for count in tokens.counts], parts.budgets),
        warmup_batches=lambda _: map(parts.collator.dummy, warmup_plans(parts.budgets)),
        stream=lambda: PackedStream(parts.budgets),
    )
