"""Calls that sentence-transformers itself answers: which they are, and how they run in the background."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch

from .worker import Worker


def slow_call(
    cross_encoder: Any, pairs: object, apply_softmax: bool | None, device: Any, pool: Any, others: object
) -> str | None:
    """Why sentence-transformers has to answer a call; None if the pipeline can."""
    reasons = {
        "a process pool": pool is not None,
        "a list of devices": isinstance(device, list),
        "distributed evaluation": _distributes(cross_encoder) and device is None,
        "inputs that are not pairs of texts": pairs is None,
        "processing arguments": bool(others),
        "a softmax over one label": bool(apply_softmax) and cross_encoder.num_labels == 1,
        # autocast belongs to the caller's thread, and the pipeline runs on another
        "autocast": torch.is_autocast_enabled(cross_encoder.device.type),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _distributes(cross_encoder: Any) -> bool:
    """Whether sentence-transformers shares inputs with other ranks; 6.0 does not know of it."""
    return getattr(cross_encoder, "_distributed_inference", None) is not None


def submit_slowly(
    predict: Callable[[], Any], leave: Callable[..., None], worker: Worker, device_type: str
) -> Future[Any]:
    """Run sentence-transformers' predict on another thread, under this thread's autocast.

    Args:
        predict: the call.
        leave: called, perhaps repeatedly, before the answer is set; see `Admission.accept`.
        worker: the threads.
        device_type: the model's.
    """
    if torch.is_autocast_enabled(device_type):
        predict = torch.autocast(device_type, dtype=torch.get_autocast_dtype(device_type))(predict)

    def answer() -> Any:
        try:
            return predict()
        finally:
            leave()

    future = worker.call(answer)
    future.add_done_callback(leave)  # if it is cancelled before it starts
    return future
