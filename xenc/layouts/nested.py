"""The nested layout, an experiment: documents as PyTorch's jagged tensors, which the whole model runs on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from ..compiled import CompiledForward
from ..errors import ExecutionError, first_line
from ..families import nestable
from ..nested.attention import NESTED_ATTENTION
from ..nested.collate import NestedCollator
from ..nested.forward import classify_nested
from ..packing import plan_packed
from ..plan import PackedPlan
from ..prepared import Batch
from ..stream import PackedStream
from .layout import Given, Layout
from .packed import packed_parts


class NestedForward(CompiledForward):
    """A compiled forward that says what of jagged tensors PyTorch cannot compile."""

    def _call(self, batch: Batch) -> Tensor:
        try:
            return super()._call(batch)
        except TorchDynamoException as error:
            raise ExecutionError(
                f"layout='nested': torch {torch.__version__} cannot compile it: {type(error).__name__}: "
                f"{first_line(error)}. Use compile_mode=None (execution='nested-eager')."
            ) from error


def nested(given: Given) -> Layout:
    """The stages of a nested execution.

    Raises:
        ExecutionError: a model that does not run on jagged tensors.
    """
    unnestable = nestable(given.model)
    if isinstance(unnestable, str):
        raise ExecutionError(f"layout='nested': {unnestable}. Use layout='packed'.")
    parts = packed_parts(given)
    budgets = replace(parts.budgets, exact=True)
    # where none are given, transformers' embeddings gather zeros, which jagged tensors have no operator for
    typed = hasattr(given.model.config, "type_vocab_size")
    collator = NestedCollator(packed=replace(parts.collator, has_token_types=typed))
    constants = (parts.traits,)
    compiled = given.compiling(classify_nested, constants, kind=NestedForward)
    return Layout(
        attention=NESTED_ATTENTION,
        collator=collator,
        forward=compiled or given.running(classify_nested, constants),
        compiled=compiled,
        plan=lambda tokens, _: plan_packed([max(1, count) for count in tokens.counts], budgets),
        warmup_batches=lambda _: map(collator.dummy, _warmup_plans(given.max_length)),
        stream=lambda: PackedStream(budgets),
    )


def _warmup_plans(max_length: int) -> tuple[PackedPlan, ...]:
    """Several documents, a few, and one: one graph has to hold for all of them."""
    sizes = (6 * max_length + 1, 2 * max_length, 2)
    return tuple(PackedPlan((), size, 0, max_length) for size in sizes)
