"""The nested layout, an experiment: documents as PyTorch's jagged tensors, which the whole model runs on."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from ..compiled import CompiledForward
from ..errors import ExecutionError
from ..families import Packable, nestable, position_offset, unnumbered_id
from ..nested.attention import NESTED_ATTENTION
from ..nested.collate import NestedCollator
from ..nested.forward import classify_nested
from ..packed_collate import PackedCollator
from ..packing import plan_packed, token_budgets
from ..plan import PackedPlan
from ..prepared import Batch
from ..stream import PackedStream
from .layout import Given, Layout

USUAL_TOKENS: Final = {"cpu": 2048, "cuda": 16_384}
"""The most tokens of a batch, as in packed ones; a batch has no more than its documents have."""


class NestedForward(CompiledForward):
    """A compiled forward that says what of jagged tensors PyTorch cannot compile."""

    def _call(self, batch: Batch) -> Tensor:
        try:
            return super()._call(batch)
        except TorchDynamoException as error:
            raise ExecutionError(
                f"layout='nested': torch {torch.__version__} cannot compile it: {_first_line(error)}. "
                "Use compile_mode=None (execution='nested-eager')."
            ) from error


def nested(given: Given) -> Layout:
    """The stages of a nested execution.

    Raises:
        ExecutionError: a model that does not run on jagged tensors.
    """
    model, max_length = given.model, given.max_length
    traits = nestable(model)
    if not isinstance(traits, Packable):
        raise ExecutionError(f"layout='nested': {traits}. Use layout='packed'.")
    usual = USUAL_TOKENS.get(model.device.type, 2048)
    budgets = token_budgets(None, max_length, usual=usual, exact=True)
    # where none are given, transformers' embeddings gather zeros, which jagged tensors have no operator for
    typed = hasattr(model.config, "type_vocab_size")
    packed = PackedCollator(
        **{**given.collating(), "has_token_types": typed},
        pooling=traits.pooling,
        first_position=position_offset(model.config),
        unnumbered_id=unnumbered_id(model.config),
    )
    collator = NestedCollator(packed=packed)
    constants = (traits,)
    compiled = given.compiling(classify_nested, constants, kind=NestedForward)
    return Layout(
        attention=NESTED_ATTENTION,
        collator=collator,
        forward=compiled or given.running(classify_nested, constants),
        compiled=compiled,
        plan=lambda tokens, _: plan_packed([max(1, count) for count in tokens.counts], budgets),
        warmup_batches=lambda _: map(collator.dummy, _warmup_plans(max_length)),
        stream=lambda: PackedStream(budgets),
    )


def _warmup_plans(max_length: int) -> tuple[PackedPlan, ...]:
    """Several documents, a few, and one: one graph has to hold for all of them."""
    sizes = (6 * max_length + 1, 2 * max_length, 2)
    return tuple(PackedPlan((), size, 0, max_length) for size in sizes)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
