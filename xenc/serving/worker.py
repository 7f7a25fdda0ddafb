"""Who runs what: one thread owns the device, a few read texts ahead of it, others hand out answers.

torch.compile and CUDA graphs belong to the thread that warmed them up, so everything that touches the model
is queued for one. Callers' own code (callbacks, activation functions) never runs on it, nor on a reader, so
that it may ask for scores in its turn. Threads start with the first job and end with the `Worker`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

import torch

Result = TypeVar("Result")

READERS: Final = 2
"""Threads that tokenize. A Rust tokenizer spreads one call over all cores by itself."""

ANSWERERS: Final = 32
"""Threads that may be in callers' code at once; they start one by one, when all others are busy."""

_PREFIX: Final = "xenc-"


class Worker:
    """The threads of one model."""

    def __init__(self) -> None:
        self._promised: set[Future[Any]] = set()
        self._start()

    def _start(self) -> None:
        self._device = ThreadPoolExecutor(1, f"{_PREFIX}device")
        self._readers = ThreadPoolExecutor(READERS, f"{_PREFIX}reader")
        self._answerers = ThreadPoolExecutor(ANSWERERS, f"{_PREFIX}answerer")
        self._process = os.getpid()

    def on_device(self, job: Callable[..., Result], *args: Any, threads: int | None = None) -> Future[Result]:
        """Run a job on the thread that owns the device.

        Args:
            job: what to run.
            *args: its arguments.
            threads: how many CPU threads it may use; None for as many as the thread that calls this.
        """
        self._survive_fork()
        return self._device.submit(_with_threads, threads or torch.get_num_threads(), job, *args)

    def read(self, job: Callable[..., Result], *args: Any) -> Future[Result]:
        """Run a job beside the device."""
        self._survive_fork()
        return self._readers.submit(job, *args)

    def answer(self, job: Callable[..., object], *args: Any) -> None:
        """Run a job that may run callers' code; here and now, if no thread can be had any more."""
        self._survive_fork()
        try:
            self._answerers.submit(job, *args)
        except RuntimeError:  # the interpreter is ending, and somebody still waits
            job(*args)

    def call(self, job: Callable[..., Result], *args: Any) -> Future[Result]:
        """Run a job that may run callers' code."""
        self._survive_fork()
        return self._answerers.submit(job, *args)

    def promise(self, future: Future[Any]) -> None:
        """Remember a result that somebody waits for, so that closing does not leave them waiting."""
        self._promised.add(future)
        future.add_done_callback(self._promised.discard)

    def fail_promised(self, error: BaseException) -> None:
        """Answer everything that is promised with an error."""
        for future in tuple(self._promised):
            self.answer(_fail, future, error)

    def close(self) -> None:
        """Cancel what is promised, and end the threads; a later job starts new ones."""
        pools = self._device, self._readers, self._answerers
        self._start()
        for future in tuple(self._promised):
            future.cancel()
        inside = threading.current_thread().name.startswith(_PREFIX)  # which cannot wait for itself
        for pool in pools:
            pool.shutdown(wait=not inside, cancel_futures=pool is not pools[-1])

    def _survive_fork(self) -> None:
        """A forked child has the parent's queues but none of its threads."""
        if os.getpid() != self._process:
            self._start()


def _fail(future: Future[Any], error: BaseException) -> None:
    with suppress(InvalidStateError):  # answered or cancelled meanwhile
        future.set_exception(error)


def _with_threads(threads: int, job: Callable[..., Result], *args: Any) -> Result:
    if torch.get_num_threads() != threads:  # OpenMP counts per thread, and Dynamo guards on the number
        torch.set_num_threads(threads)
    return job(*args)
