"""An execution's layout made concrete for one model: how to plan, collate and run its batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .attention import PACKED_ATTENTION
from .collate import Collator
from .compiled import Batch, CompiledForward
from .errors import ExecutionError
from .execution import Execution
from .families import Packable, packable, pools_at_eos, position_offset, unnumbered_id
from .forward import classify, classify_packed
from .packed_collate import PackedCollator
from .packing import plan_packed, token_budgets, warmup_plans
from .plan import Plan, bucket_lengths, plan_batches, warmup_shapes
from .stream import PackedStream, PlannedStream, Stream
from .tokens import TokenizedPairs

logger = logging.getLogger(__name__)

USUAL_BUDGET: Final = {"cpu": 2048, "cuda": 16_384}
"""Tokens. On a CPU a batch's activations should fit its cache; a GPU needs many to be busy."""


def possible_execution(model: Any, execution: Execution, *, causal: bool) -> Execution:
    """The execution that a model can run: the given one, or a bucketed one in a packed one's place.

    Args:
        model: a transformers model.
        execution: what was chosen.
        causal: whether the score is a log-odds of tokens, for which there are packed batches only.

    Raises:
        ExecutionError: something beyond the layout was asked for that would be lost.
    """
    if pools_at_eos(model.config) and (execution.layout != "padded" or execution.compile_mode is not None):
        reason = f"{type(model).__name__} looks up <eos> as it runs"
        execution = _plainer(
            execution, reason, layout="padded", compile_mode=None, freeze=False, buckets=Execution.buckets
        )
        logger.warning("%s: execution is now padded and not compiled", reason)
    unpackable = packable(model) if execution.layout == "packed" else None
    if isinstance(unpackable, str):
        execution = _plainer(execution, unpackable, layout="bucketed")
        logger.warning("%s: execution.layout is now 'bucketed'", unpackable)
    if causal and execution.layout != "packed":
        raise ExecutionError(
            f"layout={execution.layout!r}: a causal reranker runs packed. Use layout='packed'."
        )
    if execution.layout != "packed" and execution.attention == "sdpa" and not model._supports_sdpa:
        logger.warning(
            "%s has no SDPA attention: execution.attention is now 'eager'", model.config.model_type
        )
        execution = replace(execution, attention="eager")
    return execution


def _plainer(execution: Execution, reason: str, **changes: Any) -> Execution:
    """The execution with other settings, unless what only packed batches have was asked for."""
    if execution.deterministic or execution.token_budgets is not None:
        raise ExecutionError(f"layout='packed': {reason}. Use layout={changes['layout']!r}.")
    return replace(execution, **changes)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The stages that differ between layouts.

    Attributes:
        attention: transformers' name of the attention implementation to run under.
        collator: makes batches; has `collate(tokens, batch plan)`.
        forward: batch -> logits, compiled or not.
        compiled: the compiled forward, if the execution compiles.
        plan: (tokens, batch size) -> the batches of a request that is alone.
        warmup_batches: batch size -> a batch of every shape there is.
        stream: makes the queue of tokenized pairs.
    """

    attention: str
    collator: Any
    forward: Callable[[Any], Tensor]
    compiled: CompiledForward | None
    plan: Callable[[TokenizedPairs, int], Plan]
    warmup_batches: Callable[[int], Iterator[Batch]]
    stream: Callable[[], Stream]


def layout_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    execution: Execution,
    targets: Sequence[int] = (),
    compiled: CompiledForward | None = None,
) -> Layout:
    """The execution's layout for a model.

    Args:
        model: on its device.
        tokenizer: the model's.
        max_length: the most tokens a pair may have.
        execution: what was chosen.
        targets: token ids for a causal model; see `forward.head_logits`.
        compiled: graphs to go on using, if the execution compiles.

    Raises:
        ExecutionError: buckets or token budgets that do not hold max_length; a packed layout of a model
            that cannot be packed.
    """
    make = _packed if execution.layout == "packed" else _padded
    return make(model, tokenizer, max_length, execution, tuple(targets), compiled)


def _padded(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, execution: Execution,
    _: tuple[int, ...], compiled: CompiledForward | None,
) -> Layout:  # fmt: skip
    buckets = bucket_lengths(execution.buckets, max_length)
    collator = Collator(**_common(model, tokenizer))
    compiled = _compiled(classify, model, execution, (), compiled)

    def plan(tokens: TokenizedPairs, batch_size: int) -> Plan:
        lengths = buckets if execution.layout == "bucketed" else None
        return plan_batches(tokens.counts, batch_size=batch_size, sort=execution.sort, buckets=lengths)

    return Layout(
        attention=execution.attention,
        collator=collator,
        forward=compiled or partial(_run_eagerly, classify, model, ()),
        compiled=compiled,
        plan=plan,
        warmup_batches=lambda batch_size: map(collator.dummy, warmup_shapes(buckets, batch_size)),
        stream=lambda: PlannedStream(plan),
    )


def _packed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int, execution: Execution,
    targets: tuple[int, ...], compiled: CompiledForward | None,
) -> Layout:  # fmt: skip
    traits = packable(model)
    if not isinstance(traits, Packable):
        raise ExecutionError(f"layout='packed': {traits}. Use layout='bucketed'.")
    budgets = token_budgets(
        execution.token_budgets, max_length, usual=USUAL_BUDGET.get(model.device.type, 2048),
        single=execution.deterministic,
    )  # fmt: skip
    text_config = model.config.get_text_config()
    collator = PackedCollator(
        **_common(model, tokenizer),
        pooling=traits.pooling,
        first_position=position_offset(model.config),
        unnumbered_id=unnumbered_id(model.config),
        unread_id=text_config.pad_token_id if traits.head == "score" else None,
    )
    wanted = torch.tensor(targets, device=model.device) if targets else None
    constants = (traits, wanted)
    compiled = _compiled(classify_packed, model, execution, constants, compiled)
    return Layout(
        attention=PACKED_ATTENTION,
        collator=collator,
        forward=compiled or partial(_run_eagerly, classify_packed, model, constants),
        compiled=compiled,
        plan=lambda tokens, _: plan_packed([max(1, count) for count in tokens.counts], budgets),
        warmup_batches=lambda _: map(collator.dummy, warmup_plans(budgets)),
        stream=lambda: PackedStream(budgets),
    )


def _common(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    pad_id = tokenizer.pad_token_id
    return {
        "pad_id": pad_id if isinstance(pad_id, int) else 0,
        "has_token_types": "token_type_ids" in tokenizer.model_input_names,
        "device": model.device,
    }


def _compiled(
    function: Callable[..., Tensor], model: PreTrainedModel, execution: Execution,
    constants: tuple[object, ...], compiled: CompiledForward | None,
) -> CompiledForward | None:  # fmt: skip
    if execution.compile_mode is None:
        return None
    compiled = compiled or CompiledForward(function, model, execution, constants)
    compiled.strict = execution.strict
    return compiled


def _run_eagerly(
    function: Callable[..., Tensor], model: PreTrainedModel, constants: tuple[object, ...], batch: Batch
) -> Tensor:
    return function(model, *batch.arguments, *constants)
