"""xenc in frameworks that build a cross-encoder from a model's name."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import sentence_transformers

from .cross_encoder import CrossEncoder
from .execution import Execution
from .forks import renewed_in_a_child
from .presets import DEFAULT_PRESET
from .text.prompts import FirstStep
from .text.windows import LongDocuments

logger = logging.getLogger(__name__)

_Init = Callable[..., None]


@dataclass(eq=False)
class _Block:
    """One `with` block.

    Attributes:
        options: of xenc's `CrossEncoder`, for the models that are built.
        models: what has been built.
    """

    options: dict[str, Any]
    models: list[CrossEncoder] = field(default_factory=list)


_entered: ContextVar[tuple[_Block, ...]] = ContextVar("_entered", default=())
"""The blocks around what runs, outermost first. A task that goes on after a block still has it here."""

_open: dict[_Block, None] = {}
"""The blocks of all threads that have not ended."""

_replaced: list[tuple[_Init, _Init]] = []
"""The constructor that stands in while blocks are open, and sentence-transformers' own."""

_lock = renewed_in_a_child(threading.Lock())


@contextmanager
def replace_cross_encoders(
    *,
    execution: Execution | str = DEFAULT_PRESET,
    long_documents: LongDocuments = "cut",
    max_waiting_pairs: int | None = None,
    first_step: FirstStep | None = None,
) -> Iterator[list[CrossEncoder]]:
    """Within the block each `sentence_transformers.CrossEncoder(...)` that is built is xenc's.

    For frameworks that build a reranker from its name. Their object keeps the model, which scores after the
    block as within it. What they pass wins over the options given here.

    No name is replaced: sentence-transformers' class stays the same object, and its constructor makes an
    instance of xenc's, which is derived from it. So it does not matter when and how a framework imported the
    class, and `isinstance` answers as before. Its subclasses, and models built before, stay what they are.

    The block holds for the code in it and for the tasks and `asyncio.to_thread` calls that are started there,
    until it ends, in whatever way. Other threads build sentence-transformers' models meanwhile. Of nested
    blocks the innermost gives the options. When the last open block has ended the constructor is the
    original again.

    Args:
        execution: how pairs are scored, as of `CrossEncoder`.
        long_documents: what becomes of a document that does not fit.
        max_waiting_pairs: the most that may wait; None for no limit.
        first_step: what a T5 that answers with a word is asked.

    Yields:
        The models built in the block so far (also in blocks inside it), to warm up or to look at.

    A block in which none was built is a warning, since a framework may load its model only when it is used.

    Raises:
        XencError: what `CrossEncoder` raises, where the framework builds it.

    Example:
        >>> with replace_cross_encoders(execution="packed") as models:
        ...     ranker = HuggingFaceCrossEncoder(model_name="BAAI/bge-reranker-base")
        >>> models[0].warmup()
    """
    block = _Block({
        "execution": execution, "long_documents": long_documents, "max_waiting_pairs": max_waiting_pairs,
        "first_step": first_step,
    })  # fmt: skip
    _enter(block)
    token = _entered.set((*_entered.get(), block))
    try:
        yield block.models
    finally:
        _leave(block)
        _entered.reset(token)
    if not block.models:
        logger.warning(
            "replace_cross_encoders: no CrossEncoder was built in the block. Build the framework's object in "
            "it, and have it load its model there (Haystack: warm_up())."
        )


def _enter(block: _Block) -> None:
    """Open a block; with the first one sentence-transformers' constructor is replaced."""
    with _lock:
        if not _open:
            original = sentence_transformers.CrossEncoder.__init__
            _replaced[:] = [(_standing_in_for(original), original)]
            sentence_transformers.CrossEncoder.__init__ = _replaced[0][0]
        _open[block] = None


def _leave(block: _Block) -> None:
    """End a block. After the last one the original is back, unless somebody else replaced ours meanwhile."""
    with _lock:
        _open.pop(block, None)
        if not _open:
            ours, original = _replaced.pop()
            if sentence_transformers.CrossEncoder.__init__ is ours:
                sentence_transformers.CrossEncoder.__init__ = original


def _standing_in_for(original: _Init) -> _Init:
    """A constructor that makes xenc's model where a block is open, and otherwise is the original."""

    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        blocks = [block for block in _entered.get() if block in _open]
        if not blocks or type(self) is not sentence_transformers.CrossEncoder:
            return original(self, *args, **kwargs)
        object.__setattr__(self, "__class__", CrossEncoder)
        CrossEncoder.__init__(self, *args, **{**blocks[-1].options, **kwargs})
        for block in blocks:
            block.models.append(self)
        return None

    return init
