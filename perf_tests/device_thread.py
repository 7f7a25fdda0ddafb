"""The thread on which a model runs its forward passes: jobs for it, and a trace of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xenc import CrossEncoder
from xenc.profiling.kernels import recording


def on_device_thread(model: Any) -> Callable[[Callable[[], object]], object]:
    """Runs a job on the thread of a model's forward passes and waits for it.

    Uses only `run` and `forward` of `model.pipeline`, so the model may be of any revision.
    """

    def run(job: Callable[[], object]) -> object:
        pipeline = model.pipeline
        forward = pipeline.forward
        pipeline.forward = lambda _: job()
        try:
            return pipeline.run([None])[0]
        finally:
            pipeline.forward = forward

    return run


@contextmanager
def traced_thread(model: CrossEncoder, path: Path) -> Iterator[None]:
    """Write a Chrome trace (.json or .json.gz) of what the model's device thread runs during the block.

    Starting and stopping the profiler are jobs in that thread's queue: under more load than it can take, the
    trace ends when it has caught up.
    """
    with recording(
        device=model.device.type, on_device=lambda job: model._worker.on_device(job).result()
    ) as profiler:
        yield
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
