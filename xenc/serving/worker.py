"""The threads of a model: one owns the device, a few tokenize, others run callers' code.

torch.compile and CUDA graphs belong to the thread that warmed them up, so all work on the model runs on one
thread. Callers' code (callbacks, activation functions) runs on separate threads, so that it may itself ask
for scores. Threads start with the first job and end with the `Worker`. Python waits for them when it ends,
but not for a compilation that nobody waits for any more, as after Ctrl-C.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar
from weakref import WeakSet

import torch

from ..forks import renewed_in_a_child

Result = TypeVar("Result")

READERS: Final = 2
"""Threads that tokenize. A Rust tokenizer uses all cores for one call."""

ANSWERERS: Final = 32
"""Most threads that run callers' code; each starts only when all others are busy."""

_PREFIX: Final = "xenc-"
_PATIENCE_S: Final = 0.05
"""Between two interruptions of a job that has not ended yet."""

_WORKERS: Final[WeakSet[Worker]] = WeakSet()


class Worker:
    """The threads of one model."""

    def __init__(self) -> None:
        self._promised: set[Future[Any]] = set()
        self._awaited: set[Future[Any]] = set()
        self.abandoned = False
        """Whether a caller was interrupted while it waited."""
        self._may_end: int | None = None
        """The thread that is `interruptible` now."""
        self._to_end = renewed_in_a_child(threading.Lock())
        self._one_job = renewed_in_a_child(threading.Lock())
        """After `close` the old device thread may still run a job when the new one begins."""
        self._start()
        renewed_in_a_child(self)
        _WORKERS.add(self)

    def _start(self) -> None:
        self._device = ThreadPoolExecutor(1, f"{_PREFIX}device")
        self._readers = ThreadPoolExecutor(READERS, f"{_PREFIX}reader")
        self._answerers = ThreadPoolExecutor(ANSWERERS, f"{_PREFIX}answerer")

    def on_device(self, job: Callable[..., Result], *args: Any, threads: int | None = None) -> Future[Result]:
        """Run job(*args) on the device's thread.

        Args:
            job: a function.
            *args: its arguments.
            threads: CPU threads it may use; None for as many as the calling thread.
        """
        threads = threads or torch.get_num_threads()
        return self._submit(lambda: self._device, self._alone, threads, job, *args)

    def result_on_device(self, job: Callable[..., Result], *args: Any) -> Result:
        """Run job(*args) on the device's thread and wait for it."""
        future = self.on_device(job, *args)
        self._awaited.add(future)
        try:
            return future.result()
        finally:
            self.abandoned |= not future.done()  # as after KeyboardInterrupt: it need not run
            future.cancel()
            self._awaited.discard(future)

    def _alone(self, threads: int, job: Callable[..., Result], *args: Any) -> Result:
        with self._one_job:
            return _with_threads(threads, job, *args)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """What runs within it, on the device's thread, is given up if Python ends and nobody wants it."""
        self._may_end = threading.get_ident()
        try:
            yield
        finally:
            with self._to_end:
                self._may_end = None

    def read(self, job: Callable[..., Result], *args: Any) -> Future[Result]:
        """Run a job that tokenizes."""
        return self._submit(lambda: self._readers, job, *args)

    def answer(self, job: Callable[..., object], *args: Any) -> None:
        """Run a job that may run callers' code; on this thread if no other can start any more."""
        try:
            self.call(job, *args)
        except RuntimeError:  # the interpreter is ending, and a caller may still wait
            job(*args)

    def call(self, job: Callable[..., Result], *args: Any) -> Future[Result]:
        """Run a job that may run callers' code."""
        return self._submit(lambda: self._answerers, job, *args)

    def _submit(
        self, pool_now: Callable[[], ThreadPoolExecutor], job: Callable[..., Result], *args: Any
    ) -> Future[Result]:
        """Of the threads that there are now, even if `close` ends others meanwhile."""
        while True:
            pool = pool_now()
            try:
                return pool.submit(job, *args)
            except RuntimeError:  # these threads have ended
                if pool is pool_now():  # and so has the interpreter
                    raise

    def promise(self, future: Future[Any]) -> None:
        """Remember a Future, to be cancelled by `close` or failed by `fail_promised`."""
        self._promised.add(future)
        future.add_done_callback(self._promised.discard)

    def fail_promised(self, error: BaseException) -> None:
        """Set an error on every promised Future."""
        for future in tuple(self._promised):
            self.answer(_fail, future, error)

    def close(self) -> None:
        """Cancel the promised Futures and end the threads; a later job starts new ones."""
        pools = self._device, self._readers, self._answerers
        self._start()
        for future in tuple(self._promised):
            future.cancel()
        inside = threading.current_thread().name.startswith(_PREFIX)  # a thread cannot wait for itself
        for pool in pools:
            pool.shutdown(wait=not inside, cancel_futures=pool is not pools[-1])

    def interrupt_the_unwanted(self) -> None:
        """Raise KeyboardInterrupt in what is interruptible, if whoever wanted it was interrupted too."""
        while self.abandoned and not (self._promised or self._awaited):
            with self._to_end:
                if self._may_end is None:
                    return
                thread, error = ctypes.c_ulong(self._may_end), ctypes.py_object(KeyboardInterrupt)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)
            time.sleep(_PATIENCE_S)  # it sees it between two steps of Python, so not while g++ runs

    def _at_fork_reinit(self) -> None:
        """A child has none of the threads. What they were to answer is cancelled, in the child alone."""
        self._start()
        self._may_end, self._awaited, self.abandoned = None, set(), False
        promised, self._promised = self._promised, set()
        for future in promised:
            future._condition._at_fork_reinit()  # type: ignore[attr-defined]  # a thread may have held it
            future._done_callbacks.clear()  # type: ignore[attr-defined]  # they run in the parent
            if future.cancel():
                future.set_running_or_notify_cancel()


def _fail(future: Future[Any], error: BaseException) -> None:
    with suppress(InvalidStateError):  # answered or cancelled meanwhile
        future.set_exception(error)


def _with_threads(threads: int, job: Callable[..., Result], *args: Any) -> Result:
    if torch.get_num_threads() != threads:  # OpenMP's setting is per thread, and Dynamo guards on it
        torch.set_num_threads(threads)
    return job(*args)


def _interrupt_the_unwanted() -> None:
    for worker in tuple(_WORKERS):
        worker.interrupt_the_unwanted()


if hasattr(threading, "_register_atexit"):  # `atexit` is too late: Python has waited for the threads by then
    threading._register_atexit(_interrupt_the_unwanted)
