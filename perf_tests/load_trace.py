"""A Chrome trace of a model's device thread, while others keep it busy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from xenc import CrossEncoder


@contextmanager
def profiled(model: CrossEncoder, path: Path) -> Iterator[None]:
    """Leave in `path` (.json or .json.gz) what the model's device thread runs meanwhile.

    PyTorch's profiler sees the thread that it was started on, so starting and stopping it are jobs for that
    thread. They stand in its queue: under more load than it can take, the trace ends when it has caught up.
    """
    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        pass  # Kineto wants its first profile in the thread that imported torch
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    profiler = profile(activities=activities, acc_events=True)
    model._worker.on_device(profiler.start).result()
    try:
        yield
    finally:
        model._worker.on_device(profiler.stop).result()
        path.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(path))
