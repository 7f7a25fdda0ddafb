"""The road in one place: pairs -> tokens -> plan -> batches -> forward -> logits in the caller's order.

Readers tokenize, the device's thread takes batches from the stream, and a request is finished off that
thread again, so that the device never waits for a text or for a caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .encoder_decoder.first_step import FirstStepIds
from .encoder_decoder.forward import FirstStepTensors
from .errors import CompileError, ExecutionError
from .execution import Execution
from .families import packable
from .kernels.twin import twin_for
from .layouts.choice import layout_of
from .layouts.layout import Given, Layout
from .plan import Plan
from .prepared import Batch, PreparedForward, WarmupReport
from .request import Request, Scored
from .spans import Span, no_span
from .stream import NextBatch
from .tokens import PairTokenizer, TokenizedPairs
from .twin import Twin
from .worker import Worker


class Pipeline:
    """One model under one execution. Its stages are attributes: tokenize(), plan(), collator, forward.

    Args:
        model: on its device.
        tokenizer: the model's tokenizer.
        max_length: the most tokens a pair may have.
        execution: how to order, lay out and run.
        worker: the threads to run on.
        targets: for a causal model, the token ids whose logits are the score; see `forward.head_logits`.
        asked: for an encoder-decoder, what its decoder's first step compares.
        reuse: a pipeline of the same model and the same graph settings, whose graphs to go on using.

    Attributes:
        span: what each stage of a request runs in; a profiler puts its own here. See `spans`.

    Raises:
        ExecutionError: buckets or token budgets that do not hold max_length; a quantisation that the
            device, the dtype or the model does not allow for.
        NotInstalledError: a quantisation without torchao.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        execution: Execution,
        worker: Worker,
        targets: Sequence[int] = (),
        asked: FirstStepIds | None = None,
        reuse: Pipeline | None = None,
    ) -> None:
        self.execution, self.max_length = execution, max_length
        self.model, self.device, self.tokenizer = model, model.device, tokenizer
        self.signature = signature(model, tokenizer, targets, asked)
        self._tokenize = PairTokenizer(tokenizer, max_length)
        self._worker = worker
        self.span: Span = no_span
        self._twin: Twin | None = reuse._twin if reuse is not None else None
        self.products: str = "" if reuse is None else reuse.products
        if reuse is None:
            self._twin, self.products = twin_for(model, execution)
        self._runs = model if self._twin is None else self._twin.model
        self._attending = _attending(self._runs)
        given = Given(
            model=self._runs, tokenizer=tokenizer, max_length=max_length, execution=execution,
            targets=tuple(targets), asked=None if asked is None else FirstStepTensors(asked, model),
            compiled=reuse.compiled if reuse is not None else None,
        )  # fmt: skip
        layout: Layout = layout_of(given)
        self._layout = layout
        self.compiled: PreparedForward | None = layout.compiled
        self.collator = layout.collator
        self.forward: Callable[[Any], Tensor] = layout.forward
        if self._twin is not None:
            self.forward = self._twin.following(layout.forward)
        self._stream = layout.stream()

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.model.dtype

    @property
    def multiplied_dtype(self) -> torch.dtype:
        """What the products of the encoder's layers multiply."""
        return torch.int8 if self.execution.quantize == "int8" else self.dtype

    def is_of(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, targets: Sequence[int],
        asked: FirstStepIds | None,
    ) -> bool:  # fmt: skip
        """Whether a model and its tokenizer are still what this pipeline was made from."""
        same = self.signature == signature(model, tokenizer, targets, asked)
        return same and (self._twin is None or self._twin.is_of(model))

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> TokenizedPairs:
        """The tokens of N pairs, cut to max_length."""
        return self._tokenize(pairs)

    def plan(self, tokens: TokenizedPairs, *, batch_size: int) -> Plan:
        """The batches this execution makes of a request that is alone."""
        return self._layout.plan(tokens, batch_size)

    def warmup(self, batch_size: int, passes: int | None, folder: Path | None = None) -> WarmupReport:
        """Run every shape that batches can have; nothing if nothing is compiled."""
        _check_batch_size(batch_size)
        return self._worker.on_device(self._warm_up, batch_size, passes, folder).result()

    def _warm_up(self, batch_size: int, passes: int | None, folder: Path | None) -> WarmupReport:
        if self._twin is not None:
            self._twin.follow(anyway=True)
        if self.compiled is None:
            return WarmupReport(shapes=(), graphs=0, seconds=0.0, products=self.products)
        with torch.inference_mode():
            self._use_attention()
            report = self.compiled.warmup(self.every_shape(batch_size), passes, folder)
            return replace(report, products=self.products)

    def every_shape(self, batch_size: int) -> Iterator[Batch]:
        """A batch of dummies in every shape that batches can have."""
        return self._layout.warmup_batches(batch_size)

    def run(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Logits of collated batches, run one after the other on the device's thread: nothing beside."""

        @torch.inference_mode()
        def run() -> list[Tensor]:
            self._use_attention()
            return [self.forward(batch) for batch in batches]

        return self._worker.on_device(run).result()

    def score(self, pairs: Sequence[tuple[str, str]], *, batch_size: int) -> Scored:
        """Score N >= 1 pairs and wait for them.

        Raises:
            ExecutionError: a batch size below 1.
            NonFiniteScoreError: NaN logits; the message says for which pairs.
            CompileError: something compiled after warm-up, in strict mode.
        """
        scored: Scored = self.submit(pairs, batch_size=batch_size, convert=lambda scored: scored).result()
        return scored

    def submit(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        batch_size: int,
        convert: Callable[[Scored], Any],
        on_progress: Callable[[int], object] = lambda _: None,
        tokenize: Callable[[Sequence[tuple[str, str]]], TokenizedPairs] | None = None,
        leave: Callable[[], object] = lambda: None,
    ) -> Future[Any]:
        """Begin to score N >= 1 pairs; see `Request` for the arguments and `score` for the errors."""
        _check_batch_size(batch_size)
        request = Request(
            pairs, batch_size=batch_size, convert=convert, on_progress=on_progress, leave=leave,
            tokenize=tokenize or partial(self._tokenize, seen={}),
        )  # fmt: skip
        request.future.add_done_callback(self._look_again)
        self._worker.promise(request.future)
        try:
            self._worker.read(self._read_on, request)
        except BaseException:  # the interpreter is ending, or the caller was interrupted
            request.future.cancel()
            raise
        return request.future

    def _read_beside(self, request: Request) -> None:
        try:
            self._worker.read(self._read_on, request)
        except RuntimeError as error:  # the interpreter is ending
            request.fail(error)

    def _read_on(self, request: Request) -> None:
        """Reader: tokenize a request chunk by chunk, until it is read or too much waits."""
        try:
            while request.unread and not request.dropped:
                if self._stream.pause(request):
                    return
                first = len(request.pairs) - request.unread
                chunk = request.pairs[first : first + (self._stream.chunk or len(request.pairs))]
                with self.span("tokenize"):
                    tokens = request.tokenize(chunk)
                with self.span("plan"):
                    self._stream.add(request, tokens)
                self._worker.on_device(self._run_what_waits, threads=request.threads)
        except BaseException as error:
            self._worker.answer(request.fail, error)

    def _look_again(self, settled: Future[Any]) -> None:
        """A request that was dropped may have been what others waited behind."""
        if settled.cancelled() or settled.exception() is not None:
            with suppress(RuntimeError):  # the interpreter is ending
                self._worker.on_device(self._run_what_waits)

    def _run_what_waits(self) -> None:
        """Device: run batches until there is none before more is read."""
        try:
            with torch.inference_mode():
                self._run_batches()
        except BaseException as error:  # no request's own, so whoever waits is told
            self._worker.fail_promised(error)

    def _run_batches(self) -> None:
        self._use_attention()
        while True:
            with self.span("plan"):
                batch = self._stream.take()
            for request in self._stream.resume():
                self._read_beside(request)
            if batch is None:
                return
            self._run(batch)

    def _run(self, batch: NextBatch) -> None:
        requests = {document.request for document in batch.documents}
        try:
            logits = self._logits(batch)
        except BaseException as error:
            if len(requests) == 1 or isinstance(error, CompileError):
                for request in requests:
                    self._worker.answer(request.fail, error)
            else:  # one of them may be at fault: the others shall not know
                for request in requests:
                    self._run(_only(batch, request))
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

    def _logits(self, batch: NextBatch) -> Tensor:
        with self.span("collate"):
            collated = self.collator.collate(batch.tokens, batch.plan)
        with self.span("forward"):
            return self.forward(collated)

    def _use_attention(self) -> None:
        for part in self._attending:
            if part.config._attn_implementation != self._layout.attention:
                part.set_attn_implementation(self._layout.attention)


def signature(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    targets: Sequence[int],
    asked: FirstStepIds | None = None,
) -> tuple[object, ...]:
    """What a pipeline has read off its model and tokenizer: if it changes, another pipeline is needed."""
    backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    joining = None if backend is None else backend.post_processor
    return (
        id(model), model.device, model.dtype, packable(model), tuple(targets), asked,
        model.config.get_text_config().pad_token_id, tokenizer.pad_token_id,
        tuple(tokenizer.model_input_names), None if joining is None else joining.__getstate__(),
    )  # fmt: skip


def _attending(model: PreTrainedModel) -> tuple[PreTrainedModel, ...]:
    """The model, and parts of it that have a configuration of the same kind but their own: T5's encoder and
    decoder, which transformers 5.17 leaves out when it sets the model's attention.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    alike = {id(part.config): part for part in parts if type(part.config) is type(model.config)}
    return tuple(alike.values())


def _note(request: Request, batch: NextBatch, logits: Tensor, per_token: float) -> bool:
    """Tell a request what of a batch is its; whether it has everything now."""
    slots = [slot for slot, document in enumerate(batch.documents) if document.request is request]
    documents = [batch.documents[slot] for slot in slots]
    share = per_token * sum(document.count for document in documents)
    return request.note_scored(logits, slots, [document.row for document in documents], all_tokens=share)


def _only(batch: NextBatch, request: Request) -> NextBatch:
    """The same batch with one request's pairs in it."""
    documents = [document for document in batch.documents if document.request is request]
    return NextBatch(documents, replace(batch.plan, rows=tuple(range(len(documents)))))


def _check_batch_size(batch_size: int) -> None:
    if batch_size <= 0:
        raise ExecutionError(f"batch_size={batch_size!r} must be a positive number of pairs.")
