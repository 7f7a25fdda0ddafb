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

from ..batching.plan import BatchPlan, PackedPlan
from ..compiling.memory import memory_asked
from ..errors import CompileError, OutOfMemoryError
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

    @abstractmethod
    def halve(self, plan: BatchPlan | PackedPlan, asked: str, pairs: int) -> bool:
        """A batch of so many pairs did not fit: plan smaller ones. False if none is smaller.

        `asked` says what could not be allocated. Called on the device's thread, as the two below are.
        """

    @abstractmethod
    def note_fit(self, plan: BatchPlan | PackedPlan) -> None:
        """A batch has run."""

    @abstractmethod
    def does_not_fit(self, plan: BatchPlan | PackedPlan, asked: str, tokens: int) -> OutOfMemoryError:
        """The error of a pair of so many tokens, for which no batch is smaller."""

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
        try:
            logits = self._logits(batch)
            if isinstance(logits, str):
                self._run_smaller(batch, logits)
                return
            self.note_fit(batch.plan)
        except BaseException as error:
            slots_of = batch.slots
            if len(slots_of) == 1 or isinstance(error, CompileError):
                for request in slots_of:
                    self._worker.answer(request.fail, error)
            else:  # run each request separately, so that only the one at fault fails
                for slots in slots_of.values():
                    self._run_batch(batch.part(slots))
            return
        self._note_scored(batch, logits)

    def _logits(self, batch: NextBatch) -> Tensor | str:
        """The logits; or what could not be allocated, without the error, whose traceback holds tensors."""
        try:
            with self.span("collate"):
                collated = self.collator.collate(batch.tokens, batch.plan)
            with self.span("forward"):
                return self.forward(collated)
        except BaseException as error:
            asked = memory_asked(error)
            if asked is None:
                raise
            return asked

    def _run_smaller(self, batch: NextBatch, asked: str) -> None:
        """Put the pairs of a batch that did not fit first in line, for smaller ones; else they fail."""
        requests = batch.slots
        if self.halve(batch.plan, asked, len(batch.documents)):
            for request in requests:
                request.halved += 1
            self.queue.put_back(batch)
            return
        for request, slots in requests.items():
            longest = max(batch.documents[slot].count for slot in slots)
            self._worker.answer(request.fail, self.does_not_fit(batch.plan, asked, longest))

    def _note_scored(self, batch: NextBatch, logits: Tensor) -> None:
        per_token = batch.plan.all_tokens / sum(document.count for document in batch.documents)
        for request, slots in batch.slots.items():
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
