"""Which stage the time went to: a clock around the stages' callables."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from .growth import STAGES

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
