"""A Chrome trace with the stages in it: which stage ran when, on which thread, above what the device did."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

_PROCESS = "xenc: stages"


@dataclass(frozen=True, slots=True)
class Span:
    """One call of a stage: which, on what thread, from when to when by `time.time_ns`."""

    stage: str
    thread: str
    start_ns: int
    end_ns: int


class StageSpans:
    """Collects the spans of all threads; see `stages.measured_stages`."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    @property
    def spans(self) -> tuple[Span, ...]:
        """Those that have ended."""
        return tuple(self._spans)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, leaving a span each time."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                thread = threading.current_thread().name
                self._spans.append(Span(stage, thread, started, time.time_ns()))

        return timed


def add_spans(trace: Path, spans: tuple[Span, ...]) -> None:
    """Put spans into a Chrome trace that PyTorch's profiler wrote, on a track of their own."""
    written = json.loads(trace.read_text())
    base_ns = written.get("baseTimeNanoseconds", 0)
    written["traceEvents"] += [
        {
            "ph": "X",
            "cat": "xenc",
            "name": span.stage,
            "pid": _PROCESS,
            "tid": span.thread,
            "ts": (span.start_ns - base_ns) / 1000,  # microseconds
            "dur": (span.end_ns - span.start_ns) / 1000,
        }
        for span in spans
    ]
    trace.write_text(json.dumps(written))
