"""The choice of a layout: which parts of an execution a model can run, and the layout for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from transformers import PreTrainedModel

from ..compiling.warmup import PreparedForward
from ..errors import ExecutionError
from ..execution import Execution
from ..extras import missing_compiler
from ..models.families import looks_up_eos, unshareable, without_sdpa
from ..models.reranker import Reranker
from .base import Layout
from .packed import PackedLayout
from .padded import PaddedLayout
from .shared_prefix import SharedPrefixLayout

logger = logging.getLogger(__name__)


def possible_execution(reranker: Reranker, execution: Execution) -> Execution:
    """The execution, without what the model cannot run on this machine; each change logs a warning.

    Args:
        reranker: the model.
        execution: the execution asked for.

    Raises:
        ExecutionError: the model needs another layout, and the execution has settings only for its own.
    """
    for reason_of, said, instead in _LIMITS:
        reason = reason_of(reranker, execution)
        if reason is None:
            continue
        layout = instead.get("layout")  # only packed batches are deterministic or sized in tokens
        if layout is not None and (execution.deterministic or execution.token_budgets is not None):
            raise ExecutionError(f"layout='packed': {reason}. Use layout={layout!r}.")
        execution = replace(execution, **instead)
        logger.warning("%s: %s", reason, said)
    if reranker.targets and execution.layout != "packed":
        raise ExecutionError(
            f"layout={execution.layout!r}: a causal reranker runs packed. Use layout='packed'."
        )
    return execution


def _not_shareable(reranker: Reranker, execution: Execution) -> str | None:
    return unshareable(reranker.model, reranker.packing) if execution.share_prefix else None


def _looking_up_eos(reranker: Reranker, execution: Execution) -> str | None:
    plain = execution.layout == "padded" and execution.compile_mode is None
    limited = looks_up_eos(reranker.model) and not plain
    return f"{type(reranker.model).__name__} looks up <eos> as it runs" if limited else None


def _not_packable(reranker: Reranker, execution: Execution) -> str | None:
    packing = reranker.packing
    return packing if execution.layout == "packed" and isinstance(packing, str) else None


def _no_sdpa(reranker: Reranker, execution: Execution) -> str | None:
    with_sdpa = execution.layout != "packed" and execution.attention == "sdpa"
    return without_sdpa(reranker.model) if with_sdpa else None


def _no_compiler(reranker: Reranker, execution: Execution) -> str | None:
    compiles = execution.compile_mode is not None and reranker.model.device.type == "cpu"
    return missing_compiler() if compiles else None


_LIMITS: Final[tuple[tuple[Callable[[Reranker, Execution], str | None], str, dict[str, Any]], ...]] = (
    (_not_shareable, "execution.share_prefix is now False", {"share_prefix": False}),
    (
        _looking_up_eos,
        "execution is now padded and not compiled",
        {"layout": "padded", "compile_mode": None, "buckets": Execution.buckets},
    ),
    (_not_packable, "execution.layout is now 'bucketed'", {"layout": "bucketed"}),
    (_no_sdpa, "execution.attention is now 'eager'", {"attention": "eager"}),
    (_no_compiler, "execution is now not compiled, which is slower", {"compile_mode": None}),
)
"""(why the model cannot run the execution, or None; the warning; the settings that replace it)."""


def layout_of(
    reranker: Reranker,
    execution: Execution,
    *,
    model: PreTrainedModel | None = None,
    compiled: PreparedForward | None = None,
) -> Layout:
    """The layout of an execution; arguments as `Layout`'s.

    Raises:
        ExecutionError: buckets or token budgets that do not hold max_length; a model that cannot be packed.
    """
    if execution.layout != "packed":
        return PaddedLayout(reranker, execution, model=model, compiled=compiled)
    kind = SharedPrefixLayout if execution.share_prefix else PackedLayout
    return kind(reranker, execution, model=model, compiled=compiled)
