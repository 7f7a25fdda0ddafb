"""Runs requests: reader threads tokenize, the device's thread runs batches, other threads convert results.

So the device waits neither for tokenization nor for callers' code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from ..errors import CompileError
from .queue import BatchQueue, NextBatch
from .request import Request
from .spans import Span
from .worker import Worker


class Scheduler(ABC):
    """Base class that runs requests; subclasses compute the logits of a batch.

    Args:
        worker: the threads.
        queue: the queue of tokenized pairs.
        collator: has `collate(tokens of a batch's pairs, plan) -> batch on the device`.

    Attributes:
        queue, collator: as given.
        span: the context manager of each stage; a profiler sets its own. See `spans`.
    """

    def __init__(self, worker: Worker, queue: BatchQueue, collator: Any) -> None:
        self._worker, self.queue, self.collator = worker, queue, collator
        self.span: Span = nullcontext

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Logits [slots, C] of a collated batch; called on the device's thread, in inference mode."""

    def schedule(self, request: Request) -> Future[Any]:
        """Start a request and return its Future."""
        request.future.add_done_callback(self._look_again)
        self._worker.promise(request.future)
        try:
            self._worker.read(self._tokenize, request)
        except BaseException:  # the interpreter is ending, or the caller was interrupted
            request.future.cancel()
            raise
        return request.future

    def _tokenize(self, request: Request) -> None:
        """On a reader thread: tokenize a request in chunks, until it is read or the queue is full."""
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
        """On the device's thread: run batches until more pairs must be tokenized."""
        try:
            with torch.inference_mode():
                while (batch := self._next_batch()) is not None:
                    self._run_batch(batch)
        except BaseException as error:  # of no particular request, so all of them fail
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
        slots_of = batch.slots
        try:
            with self.span("collate"):
                collated = self.collator.collate(batch.tokens, batch.plan)
            with self.span("forward"):
                logits = self.forward(collated)
        except BaseException as error:
            if len(slots_of) == 1 or isinstance(error, CompileError):
                for request in slots_of:
                    self._worker.answer(request.fail, error)
            else:  # run each request separately, so that only the one at fault fails
                for slots in slots_of.values():
                    self._run_batch(NextBatch([batch.documents[slot] for slot in slots], batch.plan))
            return
        per_token = batch.plan.all_tokens / sum(document.count for document in batch.documents)
        for request, slots in slots_of.items():
            own = [batch.documents[slot] for slot in slots]
            all_tokens = per_token * sum(document.count for document in own)
            try:
                if request.note_scored(logits, slots, [each.row for each in own], all_tokens=all_tokens):
                    self._worker.answer(request.finish, self.span)
            except BaseException as error:
                self._worker.answer(request.fail, error)

    def _look_again(self, settled: Future[Any]) -> None:
        """A dropped request may have held back others."""
        if settled.cancelled() or settled.exception() is not None:
            with suppress(RuntimeError):  # the interpreter is ending
                self._worker.on_device(self._run_waiting)
