"""Requests of many callers -> batches on the device's thread -> each caller's answer.

Reader threads tokenize, the device's thread takes batches from the queue, and a request is finished off that
thread again, so that the device waits neither for a text nor for a caller.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ..errors import CompileError
from .queue import BatchQueue, NextBatch
from .request import Request
from .spans import Span, no_span
from .worker import Worker


class Scheduler(ABC):
    """What has requests answered: whoever inherits from it says what the logits of a batch are.

    Args:
        worker: the threads to run on.
        queue: what waits for the device.

    Attributes:
        queue: as given.
        span: what each stage runs in; a profiler puts its own here. See `spans`.
    """

    def __init__(self, worker: Worker, queue: BatchQueue) -> None:
        self._worker, self.queue = worker, queue
        self.span: Span = no_span

    @abstractmethod
    def _logits(self, batch: NextBatch) -> Tensor:
        """Logits [slots, C] of a batch; called on the device's thread, under inference mode."""

    def schedule(self, request: Request) -> Future[Any]:
        """Begin with a request; its Future is the answer."""
        request.future.add_done_callback(self._look_again)
        self._worker.promise(request.future)
        try:
            self._worker.read(self._tokenize, request)
        except BaseException:  # the interpreter is ending, or the caller was interrupted
            request.future.cancel()
            raise
        return request.future

    def _tokenize(self, request: Request) -> None:
        """Reader: tokenize a request chunk by chunk, until it is read or too much waits."""
        try:
            while request.unread and not request.dropped:
                if self.queue.pause(request):
                    return
                first = len(request.pairs) - request.unread
                chunk = request.pairs[first : first + (self.queue.chunk or len(request.pairs))]
                with self.span("tokenize"):
                    tokens = request.tokenize(chunk)
                with self.span("plan"):
                    self.queue.add(request, tokens)
                self._worker.on_device(self._run_waiting, threads=request.threads)
        except BaseException as error:
            self._worker.answer(request.fail, error)

    def _run_waiting(self) -> None:
        """Device: run batches until there is none before more is tokenized."""
        try:
            with torch.inference_mode():
                while (batch := self._next_batch()) is not None:
                    self._run_batch(batch)
        except BaseException as error:  # no request's own, so whoever waits is told
            self._worker.fail_promised(error)

    def _next_batch(self) -> NextBatch | None:
        with self.span("plan"):
            batch = self.queue.next_batch()
        for request in self.queue.resume():
            try:
                self._worker.read(self._tokenize, request)
            except RuntimeError as error:  # the interpreter is ending
                request.fail(error)
        return batch

    def _run_batch(self, batch: NextBatch) -> None:
        requests = batch.requests
        try:
            logits = self._logits(batch)
        except BaseException as error:
            if len(requests) == 1 or isinstance(error, CompileError):
                for request in requests:
                    self._worker.answer(request.fail, error)
            else:  # one of them may be at fault: the others shall not know
                for request in requests:
                    self._run_batch(batch.only(request))
            return
        per_token = batch.plan.all_tokens / sum(document.count for document in batch.documents)
        for request in requests:
            try:
                done = _note(request, batch, logits, per_token)
            except BaseException as error:
                self._worker.answer(request.fail, error)
            else:
                if done:
                    self._worker.answer(request.finish, self.span)

    def _look_again(self, settled: Future[Any]) -> None:
        """A request that was dropped may have been what others waited behind."""
        if settled.cancelled() or settled.exception() is not None:
            with suppress(RuntimeError):  # the interpreter is ending
                self._worker.on_device(self._run_waiting)


def _note(request: Request, batch: NextBatch, logits: Tensor, per_token: float) -> bool:
    """Tell a request what of a batch is its; whether it has everything now."""
    slots = [slot for slot, document in enumerate(batch.documents) if document.request is request]
    documents = [batch.documents[slot] for slot in slots]
    share = per_token * sum(document.count for document in documents)
    return request.note_scored(logits, slots, [document.row for document in documents], all_tokens=share)
