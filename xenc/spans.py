"""The stages of scoring, and the hook by which a profiler sees when each of them runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, get_args

Stage = Literal["tokenize", "plan", "collate", "forward", "collect"]

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""In the order data flows. Collating copies a batch to the device too; collecting waits for the logits."""

Span = Callable[[Stage], AbstractContextManager[object]]
"""What is entered before a stage and left after it, on the stage's thread. Stages do not nest."""

_NOTHING: Final = nullcontext()


def no_span(_: Stage) -> AbstractContextManager[object]:
    """The default: nobody watches."""
    return _NOTHING
