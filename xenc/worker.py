"""Who runs what: one thread owns the device, a few others read texts ahead of it.

torch.compile and CUDA graphs belong to the thread that warmed them up, so everything that touches the model
is queued for one. Threads start with the first job and end with the `Worker`, or when nobody holds it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import torch

Result = TypeVar("Result")

READERS: Final = 2
"""Threads that tokenize. A Rust tokenizer spreads one call over all cores by itself."""


class Worker:
    """The threads of one model."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._device = ThreadPoolExecutor(1, "xenc-device")
        self._readers = ThreadPoolExecutor(READERS, "xenc-reader")
        self._process = os.getpid()

    def on_device(self, job: Callable[..., Result], *args: Any) -> Future[Result]:
        """Run a job on the thread that owns the device, with as many CPU threads as the caller has."""
        self._survive_fork()
        return self._device.submit(_in_inference_mode, torch.get_num_threads(), job, *args)

    def read(self, job: Callable[..., Result], *args: Any) -> Future[Result]:
        """Run a job beside the device."""
        self._survive_fork()
        return self._readers.submit(job, *args)

    def close(self) -> None:
        """Finish what was begun, drop what was not, and end the threads; a later job starts new ones."""
        self._readers.shutdown(cancel_futures=True)
        self._device.shutdown(cancel_futures=True)
        self._start()

    def _survive_fork(self) -> None:
        """A forked child has the parent's queues but none of its threads."""
        if os.getpid() != self._process:
            self._start()


def _in_inference_mode(threads: int, job: Callable[..., Result], *args: Any) -> Result:
    if torch.get_num_threads() != threads:  # OpenMP counts per thread, and Dynamo guards on the number
        torch.set_num_threads(threads)
    with torch.inference_mode():
        return job(*args)
