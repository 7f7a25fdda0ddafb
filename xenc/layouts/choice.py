"""The choice of a layout: which parts of an execution a model can run, and the layout for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final

from transformers import PreTrainedModel

from ..batching.limit import Limit
from ..compiling.prefix_cache import Compiled
from ..errors import ExecutionError, first_line
from ..execution import Execution
from ..models.families import compiles_for_minutes, is_paddable, looks_up_eos, unshareable, without_sdpa
from ..models.reranker import Reranker
from .base import Layout
from .packed import PackedLayout
from .padded import PaddedLayout
from .shared_prefix import SharedPrefixLayout

logger = logging.getLogger(__name__)


_BUCKETED: Final = "execution.layout is now 'bucketed', which also computes padding"


def possible_execution(
    reranker: Reranker, execution: Execution, moves_scores: Callable[[Execution], str | None]
) -> tuple[Execution, str | None]:
    """The execution, without what the model cannot run on this machine; each change logs a warning.

    Args:
        reranker: the model.
        execution: what is asked for.
        moves_scores: why batches of an execution's layout change the model's scores, or None; asked of models
            that are not tested. See `probe`.

    Returns:
        What can run; and why sentence-transformers' own predict has to score instead, or None. The execution
        is then the one that describes what it does: padded to the longest pair and not compiled.

    Raises:
        ExecutionError: the model needs another layout, and the execution has settings only for its own.
    """
    model, packing = reranker.model, reranker.packing
    if execution.share_prefix:
        said = "execution.share_prefix is now False"
        execution = _without(execution, unshareable(model, packing), said, share_prefix=False)
    if looks_up_eos(model) and not (execution.layout == "padded" and execution.compile_mode is None):
        reason = f"{type(model).__name__} looks up <eos> as it runs"
        instead = {"layout": "padded", "compile_mode": None, "buckets": Execution.buckets}
        execution = _without(execution, reason, "execution is now padded and not compiled", **instead)
    if execution.layout == "packed" and isinstance(packing, str):
        execution = _without(execution, packing, _BUCKETED, layout="bucketed")
    if execution.layout != "packed" and execution.attention == "sdpa":
        said = "execution.attention is now 'eager'"
        execution = _without(execution, without_sdpa(model), said, attention="eager")
    own = None
    if reranker.first_step is None and not is_paddable(model, packing):
        execution, own = _without_moved_scores(execution, moves_scores)
    if execution.compile_mode is not None and not execution.strict and own is None:
        said = "execution is now not compiled; strict=True compiles it anyway"
        execution = _without(execution, compiles_for_minutes(model), said, compile_mode=None)
    if execution.compile_mode is not None and model.device.type == "cpu":
        said = "execution is now not compiled, which is slower"
        execution = _without(execution, missing_compiler(), said, compile_mode=None)
    if reranker.targets and execution.layout != "packed" and own is None:
        raise ExecutionError(
            f"layout={execution.layout!r}: a causal reranker runs packed. Use layout='packed'."
        )
    return execution, own


def _without_moved_scores(
    execution: Execution, moves_scores: Callable[[Execution], str | None]
) -> tuple[Execution, str | None]:
    """See `possible_execution`."""
    reason = moves_scores(execution)
    if reason is not None and execution.layout == "packed":
        execution = _without(execution, reason, _BUCKETED, layout="bucketed")
        reason = moves_scores(execution)
    nothing = {name: getattr(Execution(), name) for name in ("buckets", "quantize", "products")}
    said = "sentence-transformers' own predict scores, padded to the longest pair and not compiled"
    return _without(execution, reason, said, layout="padded", compile_mode=None, **nothing), reason


def _without(execution: Execution, reason: str | None, said: str, **instead: Any) -> Execution:
    """The execution with other settings instead, if there is a reason for them."""
    if reason is None:
        return execution
    layout = instead.get("layout")  # only packed batches are deterministic or sized in tokens
    if layout is not None and (execution.deterministic or execution.token_budgets is not None):
        only = "deterministic" if execution.deterministic else "token_budgets"
        raise ExecutionError(f"layout='packed': {reason}. Use layout={layout!r} without {only}.")
    logger.warning("%s: %s", reason, said)
    return replace(execution, **instead)


@cache
def missing_compiler() -> str | None:
    """Why `torch.compile` cannot generate code for the CPU; None if there is a working C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        return f"torch.compile has no C++ compiler ({first_line(error)})"
    return None


def layout_of(
    reranker: Reranker, execution: Execution, *,
    model: PreTrainedModel | None = None, compiled: Compiled | None = None, limit: Limit | None = None,
) -> Layout:  # fmt: skip
    """The layout of an execution; arguments as `Layout`'s.

    Raises:
        ExecutionError: buckets or token budgets that do not hold max_length; a model that cannot be packed.
    """
    if execution.layout != "packed":
        return PaddedLayout(reranker, execution, model=model, compiled=compiled, limit=limit)
    kind = SharedPrefixLayout if execution.share_prefix else PackedLayout
    return kind(reranker, execution, model=model, compiled=compiled, limit=limit)
