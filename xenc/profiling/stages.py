"""When each stage of a pipeline ran, its seconds, and the stages in a Chrome trace."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..serving.spans import Stage


class RecordedSpan(NamedTuple):
    """One run of a stage: its thread, and its start and end in ns since 1970."""

    stage: Stage
    thread: str
    start_ns: int
    end_ns: int


@contextmanager
def recorded_stages(
    pipeline: Any, synchronize: Callable[[], object] = lambda: None
) -> Iterator[list[RecordedSpan]]:
    """Record a pipeline's stages, on all its threads, while the block runs; yields the spans ended so far.

    `synchronize` waits for the device before and after each stage, so that the device's work counts in the
    stage that launched it. That undoes overlap: use it to attribute time, not to measure speed.
    """
    spans: list[RecordedSpan] = []
    zero_ns = time.time_ns() - time.perf_counter_ns()  # perf_counter never jumps, but starts anywhere

    @contextmanager
    def span(stage: Stage) -> Iterator[None]:
        synchronize()
        start_ns = zero_ns + time.perf_counter_ns()
        try:
            yield
        finally:
            synchronize()
            end_ns = zero_ns + time.perf_counter_ns()
            spans.append(RecordedSpan(stage, threading.current_thread().name, start_ns, end_ns))

    before, pipeline.span = pipeline.span, span
    try:
        yield spans
    finally:
        pipeline.span = before


def stage_seconds(spans: Iterable[RecordedSpan], passes: int) -> dict[str, float]:
    """Mean seconds per pass of each stage, added over threads."""
    total_ns: Counter[str] = Counter()
    for span in spans:
        total_ns[span.stage] += span.end_ns - span.start_ns
    return {stage: total / passes / 1e9 for stage, total in total_ns.items()}


def add_to_trace(trace: Path, spans: Iterable[RecordedSpan]) -> None:
    """Add spans to a Chrome trace that PyTorch's profiler wrote, on tracks of their own."""
    written = json.loads(trace.read_text())
    base_ns = written.get("baseTimeNanoseconds", 0)
    for span in spans:
        start_us, duration_us = (span.start_ns - base_ns) / 1000, (span.end_ns - span.start_ns) / 1000
        place = {"pid": "xenc: stages", "tid": span.thread, "ts": start_us, "dur": duration_us}
        written["traceEvents"].append({"ph": "X", "cat": "xenc", "name": span.stage, **place})
    trace.write_text(json.dumps(written))
