"""Which layout a model runs in: what it can run of an execution, and that layout's stages."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

from ..errors import ExecutionError
from ..execution import Execution
from ..extras import missing_compiler
from ..families import looks_up_eos, packable, unshareable, without_sdpa
from .layout import Given, Layout
from .packed import packed
from .padded import padded
from .shared_prefix import shared_prefix

logger = logging.getLogger(__name__)


def possible_execution(model: Any, execution: Execution, *, causal: bool) -> Execution:
    """The execution that a model can run here: the given one, or a bucketed one in a packed one's place.

    It is not compiled where there is no C++ compiler.

    Args:
        model: a transformers model.
        execution: what was chosen.
        causal: whether the score is a log-odds of tokens, for which there are packed batches only.

    Raises:
        ExecutionError: something beyond the layout was asked for that would be lost.
    """
    unshared = unshareable(model) if execution.share_prefix else None
    if unshared is not None:
        execution = replace(execution, share_prefix=False)
        logger.warning("%s: execution.share_prefix is now False", unshared)
    if looks_up_eos(model) and (execution.layout != "padded" or execution.compile_mode is not None):
        reason = f"{type(model).__name__} looks up <eos> as it runs"
        execution = _plainer(
            execution,
            reason,
            layout="padded",
            compile_mode=None,
            buckets=Execution.buckets,
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
    unattended = without_sdpa(model)
    if execution.layout in ("padded", "bucketed") and execution.attention == "sdpa" and unattended:
        logger.warning("%s: execution.attention is now 'eager'", unattended)
        execution = replace(execution, attention="eager")
    uncompilable = _why_uncompiled(model, execution)
    if uncompilable is not None:
        execution = replace(execution, compile_mode=None)
        logger.warning("%s: execution is now not compiled, which is slower", uncompilable)
    return execution


def _why_uncompiled(model: Any, execution: Execution) -> str | None:
    """Why `torch.compile` cannot work here; None if it can, or need not."""
    wanted = execution.compile_mode is not None and model.device.type == "cpu"
    return missing_compiler() if wanted else None


def _plainer(execution: Execution, reason: str, **changes: Any) -> Execution:
    """The execution with other settings, unless what only packed batches have was asked for."""
    if execution.deterministic or execution.token_budgets is not None:
        raise ExecutionError(f"layout='packed': {reason}. Use layout={changes['layout']!r}.")
    return replace(execution, **changes)


def layout_of(given: Given) -> Layout:
    """The stages of the execution's layout for a model.

    Raises:
        ExecutionError: buckets or token budgets that do not hold max_length; a packed layout of a
            model that cannot be packed.
    """
    if given.execution.share_prefix:
        return shared_prefix(given)
    return _LAYOUTS[given.execution.layout](given)


_LAYOUTS: Final = {"padded": padded, "bucketed": padded, "packed": packed}
