"""A row made ready to be timed: loaded, in its best batch size, warmed up, its scores compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch

from ..compiling.watch import watch_compiles
from ..errors import first_line
from ..presets import PRESETS
from .agreement import Agreement, agreement
from .rows import Row

Pair = tuple[str, str]
Load = Callable[[Row], Any]
"""Makes the model of a row."""

BATCH_SIZES: Final = (8, 16, 32, 64)
"""Of sentence-transformers, of which the fastest is taken."""

BATCH_SIZE: Final = 32
"""Of bucketed batches."""

PRIMED_ON: Final = 16
"""Pairs that a row scores before its turn, so that the turn begins with warm caches."""


@dataclass(kw_only=True)
class Timed:
    """What was measured of a row.

    Attributes:
        row: which.
        batch_size: pairs of a batch; None for packed batches, which count tokens.
        warmup_s: seconds of the warm-up; None if there is none.
        seconds: of each timed pass.
        agreement: its logits against those of sentence-transformers in float32, if those are known.
        compiled: what compiled during a timed pass; "" if nothing did.
        ran_as: settings that differ from the preset's, because the model cannot run it; "" if none.
        problem: why it could not be made ready or timed.
    """

    row: Row
    batch_size: int | None = None
    warmup_s: float | None = None
    seconds: list[float] = field(default_factory=list)
    agreement: Agreement | None = None
    compiled: str = ""
    ran_as: str = ""
    problem: str | None = None

    @property
    def counts(self) -> bool:
        """Whether its speed means something: it was timed, and nothing failed or compiled meanwhile."""
        return self.problem is None and bool(self.seconds) and not self.compiled


class Contestant:
    """A model and its measurements."""

    def __init__(self, model: Any, timed: Timed) -> None:
        self.model, self.timed = model, timed

    def logits(self, pairs: Sequence[Pair], batch_size: int | None = None) -> np.ndarray:
        """[N] or [N, C] float32 logits."""
        return logits_of(self.model, pairs, batch_size or self.timed.batch_size or BATCH_SIZE)

    def time(self, pairs: Sequence[Pair]) -> None:
        """Score the pairs once on the clock, watching what compiles; a failure is noted."""
        with watch_compiles() as watch:
            try:
                self.logits(pairs[:PRIMED_ON])
                self.timed.seconds.append(self.seconds(pairs))
            except Exception as error:
                self.timed.problem = in_one_line(error)
        if not watch.report.clean:
            self.timed.compiled = watch.report.describe().splitlines()[0]

    def seconds(self, pairs: Sequence[Pair], batch_size: int | None = None) -> float:
        """Seconds from texts to scores. `predict` returns scores on the host, so the device has finished."""
        started = time.perf_counter()
        self.logits(pairs, batch_size)
        return time.perf_counter() - started

    def close(self) -> None:
        """End the model's threads, if it has any."""
        if self.timed.row.is_xenc:
            self.model.close()


def made_ready(
    load: Load, timed: Timed, pairs: Sequence[Pair], exact: np.ndarray | None
) -> Contestant | None:
    """Load and warm up a row and compare its scores; None if that fails, which is noted.

    Args:
        load: makes its model.
        timed: of the row, to be filled.
        pairs: those that will be timed.
        exact: their logits by sentence-transformers in float32, if known.
    """
    contestant = None
    try:
        contestant = Contestant(load(timed.row), timed)
        if timed.row.is_xenc:
            _warm_up(contestant)
        else:
            timed.batch_size = _best_batch_size(contestant, pairs)
        logits = contestant.logits(pairs)
        if not np.isfinite(logits).all():
            raise ArithmeticError("some of its scores are not finite")
        timed.agreement = None if exact is None else agreement(logits, exact)
    except Exception as error:
        timed.problem = in_one_line(error)
        if contestant is not None:
            contestant.close()
        return None
    return contestant


def logits_of(model: Any, pairs: Sequence[Pair], batch_size: int) -> np.ndarray:
    """[N] or [N, C] float32 logits by a model's `predict`, in the caller's order."""
    logits: np.ndarray = model.predict(
        list(pairs), batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
    )
    return logits


def in_one_line(error: Exception) -> str:
    """What an error is and the first line of what it says."""
    return f"{type(error).__name__}: {first_line(error)}"


def _warm_up(contestant: Contestant) -> None:
    model, timed = contestant.model, contestant.timed
    asked = PRESETS[timed.row.system]
    _ = model.pipeline  # raises if there is none
    if asked.layout != "packed" or model.execution.layout != "packed":
        timed.batch_size = BATCH_SIZE
    started = time.perf_counter()
    model.warmup(BATCH_SIZE)
    if asked.compile_mode is not None:
        timed.warmup_s = time.perf_counter() - started
    ran = model.execution
    changed = [name for name, value in vars(asked).items() if getattr(ran, name) != value]
    timed.ran_as = ", ".join(f"{name}={getattr(ran, name)!r}" for name in changed)


def _best_batch_size(contestant: Contestant, pairs: Sequence[Pair]) -> int:
    """The fastest of one pass each, after a few pairs that do not count. A size that fails is left out."""
    contestant.logits(pairs[:PRIMED_ON], BATCH_SIZES[0])
    found: dict[int, float] = {}
    for size in BATCH_SIZES:
        try:
            found[size] = contestant.seconds(pairs, size)
        except Exception:
            if size == BATCH_SIZES[0]:
                raise
    return min(found, key=found.__getitem__)
