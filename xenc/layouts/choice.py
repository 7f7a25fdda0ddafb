"""Which layout a model runs in: what of an execution it can run here, and that layout's stages."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class _Limit:
    """Something of an execution that cannot be: why, what is said of it, and what takes its place."""

    reason: str
    said: str
    instead: dict[str, Any]


def _limit(reason: str | None, said: str, **instead: Any) -> _Limit | None:
    return None if reason is None else _Limit(reason, said, instead)


def possible_execution(reranker: Reranker, execution: Execution) -> Execution:
    """What of an execution a model can run here; each change is a warning.

    Args:
        reranker: the model.
        execution: what was chosen.

    Raises:
        ExecutionError: something was asked for that has no counterpart in what the model can run.
    """
    for limit_of in (_sharing, _filling, _packing, _attending, _compiling):
        limit = limit_of(reranker, execution)
        if limit is not None:
            _refuse_to_lose(execution, limit)
            execution = replace(execution, **limit.instead)
            logger.warning("%s: %s", limit.reason, limit.said)
    if reranker.targets and execution.layout != "packed":
        raise ExecutionError(
            f"layout={execution.layout!r}: a causal reranker runs packed. Use layout='packed'."
        )
    return execution


def _sharing(reranker: Reranker, execution: Execution) -> _Limit | None:
    reason = unshareable(reranker.model, reranker.packing) if execution.share_prefix else None
    return _limit(reason, "execution.share_prefix is now False", share_prefix=False)


def _filling(reranker: Reranker, execution: Execution) -> _Limit | None:
    plain = execution.layout == "padded" and execution.compile_mode is None
    limited = looks_up_eos(reranker.model) and not plain
    reason = f"{type(reranker.model).__name__} looks up <eos> as it runs" if limited else None
    said = "execution is now padded and not compiled"
    return _limit(reason, said, layout="padded", compile_mode=None, buckets=Execution.buckets)


def _packing(reranker: Reranker, execution: Execution) -> _Limit | None:
    unpackable = execution.layout == "packed" and isinstance(reranker.packing, str)
    reason = str(reranker.packing) if unpackable else None
    return _limit(reason, "execution.layout is now 'bucketed'", layout="bucketed")


def _attending(reranker: Reranker, execution: Execution) -> _Limit | None:
    with_sdpa = execution.layout != "packed" and execution.attention == "sdpa"
    reason = without_sdpa(reranker.model) if with_sdpa else None
    return _limit(reason, "execution.attention is now 'eager'", attention="eager")


def _compiling(reranker: Reranker, execution: Execution) -> _Limit | None:
    compiles = execution.compile_mode is not None and reranker.model.device.type == "cpu"
    reason = missing_compiler() if compiles else None
    return _limit(reason, "execution is now not compiled, which is slower", compile_mode=None)


def _refuse_to_lose(execution: Execution, limit: _Limit) -> None:
    """Only packed batches have a size in tokens and the same bits whatever they hold."""
    layout = limit.instead.get("layout")
    if layout is not None and (execution.deterministic or execution.token_budgets is not None):
        raise ExecutionError(f"layout='packed': {limit.reason}. Use layout={layout!r}.")


def layout_of(
    reranker: Reranker,
    execution: Execution,
    *,
    model: PreTrainedModel | None = None,
    compiled: PreparedForward | None = None,
) -> Layout:
    """The stages of an execution for a model; arguments as `Layout`'s.

    Raises:
        ExecutionError: buckets or token budgets that do not hold max_length; a model that cannot be packed.
    """
    kind = SharedPrefixLayout if execution.share_prefix else _LAYOUTS[execution.layout]
    return kind(reranker, execution, model=model, compiled=compiled)


_LAYOUTS: Final[dict[str, type[Layout]]] = {
    "padded": PaddedLayout,
    "bucketed": PaddedLayout,
    "packed": PackedLayout,
}
