"""The stages of scoring, and the hook through which a profiler times them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Literal, get_args

Stage = Literal["tokenize", "plan", "collate", "forward", "collect"]

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""In the order data flows. "collate" includes the copy to the device; "collect" waits for the logits."""

Span = Callable[[Stage], AbstractContextManager[object]]
"""Makes the context manager that a stage runs in, on the stage's thread. Stages do not nest."""
