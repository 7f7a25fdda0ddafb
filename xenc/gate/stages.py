"""Which stage the time went to: a clock around the stages' callables, and the stage that grew most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Final, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

STAGES: Final = ("tokenize", "plan", "collate", "forward", "collect")
"""In the order data flows. Collating lays tokens out and copies them to the device: one call does both."""


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


def grown_stage(head: Mapping[str, float], base: Mapping[str, float]) -> str | None:
    """The stage whose seconds grew most, and its share of all growth; None if no stage grew.

    Args:
        head, base: seconds by stage. A stage without a number on one side is not compared: an older revision
            may lack the seam.
    """
    growth = {stage: head[stage] - base[stage] for stage in STAGES if stage in head and stage in base}
    grown = {stage: seconds for stage, seconds in growth.items() if seconds > 0}
    if not grown:
        return None
    most = max(grown, key=lambda stage: grown[stage])
    old, new = base[most], head[most]
    relative = f" ({new / old - 1:+.1%})" if old else ""
    share = grown[most] / sum(grown.values())
    return f"{most}: {1000 * old:.1f} ms -> {1000 * new:.1f} ms{relative}, {share:.0%} of the growth"
