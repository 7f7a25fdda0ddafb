"""Which calls the fast path does not take: sentence-transformers itself answers those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def slow_call(
    cross_encoder: Any, *, multimodal: bool, apply_softmax: bool, pool: Any = None, device: Any = None,
    extra: bool = False,
) -> str | None:  # fmt: skip
    """Why one call is sentence-transformers' to answer; None if the fast path takes it."""
    device_type = cross_encoder.device.type
    reasons = (
        ("a process pool", pool is not None),
        ("a list of devices", isinstance(device, list)),
        ("multimodal inputs", multimodal),
        ("processing arguments", extra),
        ("a softmax over one label", apply_softmax and cross_encoder.num_labels == 1),
        # autocast belongs to the caller's thread, and the fast path has a thread of its own
        ("autocast", torch.is_autocast_enabled(device_type)),
    )
    return next((reason for reason, holds in reasons if holds), None)


def with_callers_autocast(job: Callable[[], Any], device_type: str) -> Callable[[], Any]:
    """The job as another thread must run it to answer as this one would: autocast belongs to a thread."""
    if not torch.is_autocast_enabled(device_type):
        return job
    dtype = torch.get_autocast_dtype(device_type)

    def run() -> Any:
        with torch.autocast(device_type, dtype=dtype):
            return job()

    return run
