"""A Chrome trace of a model's device thread, while others keep it busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xenc import CrossEncoder
from xenc.profiling.kernels import recording


@contextmanager
def profiled(model: CrossEncoder, path: Path) -> Iterator[None]:
    """Leave in `path` (.json or .json.gz) what the model's device thread runs meanwhile.

    Starting and stopping the profiler are jobs for that thread, and stand in its queue: under more load than
    it can take, the trace ends when it has caught up.
    """
    with recording(
        device=model.device.type, on_device=lambda job: model._worker.on_device(job).result()
    ) as profiler:
        yield
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
