"""The thread on which a model of any revision runs its forward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_device_thread(model: Any) -> Callable[[Callable[[], object]], object]:
    """What runs a job on the thread of a model's forward passes, and waits for it.

    Only `model.pipeline`'s `run` and `forward` are used.
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
