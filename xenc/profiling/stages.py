"""Which stage the time went to: a clock around the stages' callables, where they hang on a pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any, Final, ParamSpec, TypeVar

STAGES: Final = ("tokenize", "plan", "collate", "forward", "collect")
"""In the order data flows. Collating lays tokens out and copies them to the device: one call does both."""

PATIENCE_S: Final = 10
"""For callers' own code, which may run as the scores are handed over."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class StageClock:
    """Adds up the seconds of each stage over all threads. Stages that overlap in time each count in full.

    Args:
        synchronize: waits for the device, before and after each call, so that its work counts where it was
            launched. This takes away what the pipeline overlaps: use it to attribute, not to time.
    """

    def __init__(self, synchronize: Callable[[], object] | None = None) -> None:
        self._synchronize = synchronize or (lambda: None)
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._inner = threading.local()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far, of those stages that ran."""
        with self._lock:
            return dict(self._seconds)

    def timed(self, stage: str, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """The same function, on the clock. What a timed call inside it takes is the inner stage's alone.

        Raises:
            ValueError: a stage that is not one of STAGES.
        """
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}: the stages are {', '.join(STAGES)}")

        @wraps(function)
        def timed(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            outer = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds = 0.0
            self._synchronize()
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._synchronize()
                whole = time.perf_counter() - started
                with self._lock:
                    self._seconds[stage] = self._seconds.get(stage, 0.0) + whole - self._inner.seconds
                self._inner.seconds = outer + whole

        return timed


Timed = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""(stage, function) -> the same function, measured: `StageClock.timed`, for one."""


@contextmanager
def measured_stages(pipeline: Any, timed: Timed) -> Iterator[None]:
    """Measure the stages' callables where they hang on a pipeline, while the block runs.

    The pipeline may be any revision's: a seam that it lacks is left out.
    """
    collator, stream = pipeline.collator, getattr(pipeline, "_stream", None)
    measured_collator = SimpleNamespace(collate=timed("collate", collator.collate))
    collecting: list[threading.Event] = []

    def collects(answer: Callable[..., None]) -> Callable[..., None]:
        def collect(job: Callable[..., object], *args: Any) -> None:
            collecting.append(threading.Event())
            answer(partial(_then_set, collecting[-1], timed("collect", job)), *args)

        return collect

    replaced = [
        _replace(pipeline, "collator", lambda _: measured_collator),
        _replace(pipeline, "forward", partial(timed, "forward")),
        _replace(pipeline, "_tokenize", partial(timed, "tokenize")),
        _replace(stream, "take", partial(timed, "plan")),
        _replace(stream, "_plan", partial(timed, "plan")),
        _replace(getattr(pipeline, "_worker", None), "answer", collects),
    ]
    try:
        yield
    finally:
        for restore in replaced:
            restore()
        for collected in collecting:  # a caller has the scores before the stage that handed them over ends
            collected.wait(timeout=PATIENCE_S)


def _then_set(done: threading.Event, job: Callable[..., object], *args: Any) -> None:
    try:
        job(*args)
    finally:
        done.set()


def _replace(owner: Any, name: str, by: Callable[[Any], Any]) -> Callable[[], None]:
    """Put something else in an attribute's place, if it is there; call what is returned to undo it."""
    if not hasattr(owner, name):
        return lambda: None
    own = vars(owner).get(name)
    setattr(owner, name, by(getattr(owner, name)))
    return lambda: delattr(owner, name) if own is None else setattr(owner, name, own)
