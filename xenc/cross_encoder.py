"""A drop-in for sentence-transformers' `CrossEncoder` that scores pairs with our pipeline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from weakref import ref

import sentence_transformers
from sentence_transformers.util.decorators import (
    cross_encoder_init_args_decorator,
    cross_encoder_predict_rank_args_decorator,
)
from tqdm.auto import tqdm

from .compiling.wrapper import WarmupReport
from .errors import ModelError
from .execution import Execution
from .forks import renewed_in_a_child
from .kernels.library import build_in_background
from .models.changes import Look
from .models.first_step import FIRST_STEP_MODULES, FirstStepScorer, first_step_scorer
from .models.loading import ask, first_step_modules, loading_errors, restore_weights, runs_on_processor
from .models.reranker import Reranker, current_reranker, own_logits, reader_for
from .pipeline import OwnPredict, Pipeline, pipeline_for
from .presets import DEFAULT_PRESET, resolve_execution
from .serving.admission import Admission
from .serving.answer import Answer, original_batches
from .serving.request import PredictReport, Request, Scored, check_batch_size
from .serving.slow_path import slow_call, submit_slowly
from .serving.worker import Worker
from .text.pairs import as_list, as_pairs, faults_named
from .text.prompts import FirstStep
from .text.tokenizer import tokenizer_lock
from .text.windows import LongDocuments, known, windows_of

logger = logging.getLogger(__name__)


for _lock in getattr(tqdm.get_lock(), "locks", ()):
    if hasattr(_lock, "_at_fork_reinit"):  # another is shared between processes
        renewed_in_a_child(_lock)


class CrossEncoder(sentence_transformers.CrossEncoder):
    """A sentence-transformers `CrossEncoder` whose `predict` and `rank` run an `Execution`.

    Same constructor, same calls, same scores. Calls with process pools, lists of devices, inputs other than
    pairs of texts, custom modules or processing arguments, and models on which somebody's code hangs (hooks,
    for instance), go to sentence-transformers' own `predict`, logged once at INFO.
    Calls from many threads share batches. The model's own threads end with `close`, with the `with` block,
    or with the model.

    Args:
        *args: as sentence-transformers' `CrossEncoder`.
        execution: an `Execution`, or a preset's name (`xenc.PRESETS`).
        long_documents: what becomes of a document that does not fit beside its query: "cut" (as in
            sentence-transformers), or overlapping windows that all carry the query, of which the "first", the
            "max" or the "mean" of the logits counts. The attribute may be changed.
        max_waiting_pairs: the most pairs that may wait for their scores; a call that would exceed it raises
            `Overloaded` at once. None for any number. The attribute may be changed.
        first_step: the prompt of a generating T5; monoT5's by default.
        **kwargs: as sentence-transformers' `CrossEncoder`.

    Raises:
        ExecutionError: an unknown preset, buckets that do not reach max_length, or max_waiting_pairs below 1.
        ModelError: the checkpoint cannot be loaded or has no first step, or no pair fits max_length.

    Example:
        >>> model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")
        >>> model.warmup(batch_size=32)
        >>> model.predict([("how long is a marathon?", "A marathon is 42.195 km.")], batch_size=32)
    """

    refuse_nan: bool = True
    """Whether NaN logits raise NonFiniteScoreError. An evaluator of sentence-transformers always gets NaN."""

    last_report: PredictReport | None = None
    """Token counts and padding of the last call that the pipeline answered."""

    _look: Look | None = None

    _module_classes = MappingProxyType(dict.fromkeys(FIRST_STEP_MODULES, FirstStepScorer))
    """Our own module is loaded without trust_remote_code."""

    @cross_encoder_init_args_decorator  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *args: Any,
        execution: Execution | str = DEFAULT_PRESET,
        long_documents: LongDocuments = "cut",
        max_waiting_pairs: int | None = None,
        first_step: FirstStep | None = None,
        **kwargs: Any,
    ) -> None:
        self._asked, self._admission = resolve_execution(execution), Admission(max_waiting_pairs)
        self._first_step, self.long_documents = first_step, known(long_documents)
        if self._asked.layout == "packed" and runs_on_processor(kwargs.get("device")):
            build_in_background()
        name = args[0] if args else kwargs.get("model_name_or_path")
        with loading_errors(name):
            super().__init__(*args, **kwargs)
        restore_weights(self, name, kwargs)
        ask(self, first_step, kwargs.get("num_labels"))
        self._lock = renewed_in_a_child(threading.RLock())
        self._worker = Worker()
        self._pipeline: Pipeline | OwnPredict | None = None
        self._said: set[str] = set()
        self._prepare()  # raises here, rather than at the first request, for buckets that do not fit

    def _load_default_modules(self, model_name_or_path: str, **loading: Any) -> Any:  # type: ignore[override]
        own = {**loading, "backend": self.backend}
        modules = first_step_modules(model_name_or_path, self._first_step, own)
        return (modules, {}) if modules else super()._load_default_modules(model_name_or_path, **loading)

    @property
    def num_labels(self) -> int:
        """How many scores a pair has."""
        scorer = first_step_scorer(self)
        return super().num_labels if scorer is None else scorer.num_labels

    @property
    def execution(self) -> Execution:
        """How pairs are scored: what was asked for, without what the model cannot run.

        Setting it keeps the compiled graphs if they still fit.
        """
        return self._asked if self._pipeline is None else self._pipeline.execution

    @execution.setter
    def execution(self, execution: Execution | str) -> None:
        before, self._asked = self._asked, resolve_execution(execution)
        try:
            self._prepare()
        except Exception:
            self._asked = before
            raise

    @property
    def max_waiting_pairs(self) -> int | None:
        """The most pairs that may wait for their scores; None for any number. See `Overloaded`."""
        return self._admission.limit

    @max_waiting_pairs.setter
    def max_waiting_pairs(self, limit: int | None) -> None:
        self._admission.limit = limit

    @property
    def waiting_pairs(self) -> int:
        """Pairs accepted and not answered yet."""
        return self._admission.waiting

    def warmup(
        self, batch_size: int = 32, passes: int | None = None, cache_dir: str | Path | None = None
    ) -> WarmupReport:
        """Compile, and run every shape that `predict(..., batch_size=batch_size)` can produce.

        Call it before the first request, for bucketed batches once for each batch size in use. It does
        nothing if the execution is not compiled.

        Args:
            batch_size: pairs per bucketed batch.
            passes: how often each shape runs; None for three times under CUDA graphs and once without.
            cache_dir: a folder that keeps one model's compiled graphs for later processes.
        """
        with self._lock:
            self.eval()
            pipeline = self._prepare()
        if isinstance(pipeline, str):
            return WarmupReport()
        report = pipeline.warmup(batch_size, passes, None if cache_dir is None else Path(cache_dir))
        logger.info("warmed up %d shapes in %.1f s", len(report.shapes), report.seconds)
        return report

    def submit(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        activation_fn: Callable[..., Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> Future[Any]:
        """Start scoring and return at once: the Future's result is what `predict` would return.

        Cancelling the Future drops pairs that have not run. Overloaded is raised here.
        """
        single = self.is_singular_input(inputs)
        listed = as_list(inputs, single=single)
        with self._admission.accept(len(listed)) as leave:
            routed = self._route(listed, apply_softmax, prompt, prompt_name)
            if routed is None:
                slowly = faults_named(listed)(partial(
                    super().predict, inputs, prompt_name, prompt, batch_size, False, activation_fn,
                    apply_softmax, convert_to_numpy, convert_to_tensor,
                ))  # fmt: skip
                return submit_slowly(slowly, leave, self._worker, self.device.type)
            prompt = self._resolve_prompt(prompt, prompt_name)
            asked, convert = self._to_score(
                *routed, prompt, batch_size, activation_fn, single=single,
                apply_softmax=bool(apply_softmax), array=convert_to_numpy, tensor=convert_to_tensor,
            )  # fmt: skip
            return self._submit(
                routed[0], asked, prompt, answer=convert, batch_size=batch_size, leave=leave
            )  # fmt: skip

    @cross_encoder_predict_rank_args_decorator
    def predict(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[..., Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score pairs as `sentence_transformers.CrossEncoder.predict` does: same arguments, same result.

        Raises:
            PairError: an input that cannot be scored; also the error that sentence-transformers raises.
            NonFiniteScoreError: NaN logits; the message says for which pairs.
            CompileError: something compiled after `warmup` or cannot be, with `Execution(strict=True)`.
            Overloaded: more than `max_waiting_pairs` would wait; nothing was accepted.

        `batch_size` counts rows of padded and bucketed batches; packed ones have token budgets instead.
        `device` moves the model, so no other thread may be using it.
        """
        single = self.is_singular_input(inputs)
        listed = as_list(inputs, single=single)
        with self._admission.accept(len(listed)) as leave:
            routed = self._route(
                listed, apply_softmax, prompt, prompt_name, device=device, pool=pool, **kwargs
            )
            if routed is None:
                with faults_named(listed):
                    scores = super().predict(
                        inputs, prompt_name, prompt, batch_size, show_progress_bar, activation_fn,
                        apply_softmax, convert_to_numpy, convert_to_tensor, device, pool, chunk_size,
                        **kwargs,
                    )  # fmt: skip
                leave()
                return scores
            prompt = self._resolve_prompt(prompt, prompt_name)
            asked, convert = self._to_score(
                *routed, prompt, batch_size, activation_fn, single=single,
                apply_softmax=bool(apply_softmax), array=convert_to_numpy, tensor=convert_to_tensor,
            )  # fmt: skip
            scored = self._wait(
                routed[0], asked, prompt, show_progress_bar, batch_size=batch_size, leave=leave
            )  # fmt: skip
        return convert(scored)  # the activation function runs on the caller's thread

    def preprocess(self, *args: Any, **kwargs: Any) -> Any:
        """As sentence-transformers', under a lock, because it changes the tokenizer's settings."""
        with tokenizer_lock(self.tokenizer):
            return super().preprocess(*args, **kwargs)

    def close(self) -> None:
        """Cancel every request that is not answered, and end the threads. A later call starts new ones."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pipeline(self) -> Pipeline:
        """The stages that score pairs, for the model as it is now.

        Raises:
            ModelError: this model is scored by sentence-transformers' own `predict`; the message says why.
        """
        pipeline = self._prepare()
        if isinstance(pipeline, str):
            raise ModelError(f"sentence-transformers scores this model by itself ({pipeline}): use predict.")
        return pipeline

    def _prepare(self, reranker: Reranker | str | None = None) -> Pipeline | str:
        """The pipeline of the model as it is now, with the graphs that still fit; or why there is none."""
        with self._lock:
            reranker = reranker or current_reranker(self, self._looked())
            if isinstance(reranker, str):
                return reranker
            current = self._pipeline
            if current is None or not current.still_serves(reranker, self._asked):
                if reranker.has_too_few_positions:
                    logger.warning(
                        "max_length=%s is more than the %d tokens that this model has positions for: "
                        "requests with a longer pair go to sentence-transformers, and each request is "
                        "tokenized twice. Pass max_length=%d to cut such pairs.",
                        reranker.asked_length, reranker.max_length, reranker.max_length,
                    )  # fmt: skip
                own, worker = partial(own_logits, self), self._worker
                current = pipeline_for(
                    reranker, reader_for(self, reranker), self._asked, worker, own, current
                )
                self._pipeline = current
            if isinstance(current, OwnPredict):
                self._said.add(current.why)
                return current.why
            return current

    def _looked(self) -> Look:
        """What hangs on the modules as they are now."""
        look = self._look
        if look is None or not look.holds():
            look = self._look = Look(self)
        return look

    def _route(
        self, listed: list[Any], apply_softmax: bool | None, prompt: str | None, prompt_name: str | None, *,
        device: Any = None, pool: Any = None, **others: Any,
    ) -> tuple[Pipeline, list[tuple[str, str]]] | None:  # fmt: skip
        """The pipeline and the inputs as pairs; None if sentence-transformers scores them."""
        pairs = as_pairs(listed)
        slow = slow_call(self, pairs, apply_softmax, device, pool, others)
        if slow is None and not pairs:
            return None
        reranker = slow or current_reranker(self, self._looked())
        if not isinstance(reranker, str) and device is not None:
            self._worker.result_on_device(self.to, device)
            reranker = current_reranker(self, self._looked())
        scores = reranker if isinstance(reranker, str) else self._prepare(reranker)
        if isinstance(scores, Pipeline):
            assert pairs is not None
            assert isinstance(reranker, Reranker)
            cuts = self.long_documents != "cut"
            if cuts or not self._has_too_long(reranker, pairs, prompt, prompt_name):
                return scores, pairs
            scores = f"a pair of more than {reranker.max_length} tokens"
        if self.long_documents != "cut":
            raise ModelError(
                f"long_documents={self.long_documents!r}: sentence-transformers scores this call ({scores}), "
                "and cuts long documents. Use long_documents='cut'."
            )
        if scores not in self._said:
            self._said.add(scores)
            logger.info("%s: scored by sentence-transformers' own predict", scores)
        return None

    def _has_too_long(
        self, reranker: Reranker, pairs: list[tuple[str, str]], prompt: str | None, prompt_name: str | None
    ) -> bool:
        """Whether sentence-transformers would hand the model a pair that it has no positions for."""
        if not reranker.has_too_few_positions:
            return False
        read = reader_for(self, reranker).for_request(self._resolve_prompt(prompt, prompt_name))
        return read(pairs).truncated_pairs > 0

    def _to_score(
        self, pipeline: Pipeline, pairs: list[tuple[str, str]], prompt: str | None, batch_size: int,
        activation_fn: Any, **form: bool,
    ) -> tuple[Sequence[tuple[str, str]], Callable[[Scored], Any]]:  # fmt: skip
        """What is scored, and what makes the result of its logits."""
        how, reranker = known(self.long_documents), pipeline.reranker
        convert = self._converting(pairs, batch_size, activation_fn, **form)
        if how == "cut":
            return pairs, convert
        tokenize = pipeline.reader.for_request(prompt)
        tokenizer, max_length = reranker.tokenizer, reranker.max_length
        windows = windows_of(pairs, tokenize, tokenizer, max_length, first=how == "first")
        return windows.pairs, lambda scored: convert(scored.joined(windows, how))

    def _submit(
        self, pipeline: Pipeline, pairs: Sequence[tuple[str, str]], prompt: str | None, **more: Any
    ) -> Future[Any]:
        with self._lock:
            if self._look is None or self._look.training:
                self.eval()  # which visits every module
        return pipeline.schedule(Request(pairs, tokenize=pipeline.reader.for_request(prompt), **more))

    def _wait(
        self, pipeline: Pipeline, pairs: Sequence[tuple[str, str]], prompt: str | None, shown: bool | None,
        **more: Any,
    ) -> Scored:  # fmt: skip
        """The logits of a request, under a progress bar if one is to be shown."""
        if shown is None:
            level = logging.getLogger(sentence_transformers.__name__).getEffectiveLevel()
            shown = level in (logging.INFO, logging.DEBUG)
        bar = tqdm(total=len(pairs), desc="Pairs") if shown else None  # which takes a lock even if disabled
        with bar or nullcontext():
            answering: dict[str, Any] = {"answer": lambda scored: scored}
            if bar is not None:
                answering["on_progress"] = bar.update
            future = self._submit(pipeline, pairs, prompt, **answering, **more)
            try:
                scored: Scored = future.result()
            except BaseException:
                self._worker.abandoned |= future.cancel()  # after KeyboardInterrupt the rest need not run
                raise
        return scored

    def _converting(
        self, pairs: list[tuple[str, str]], batch_size: int, activation_fn: Any, **form: bool
    ) -> Callable[[Scored], Any]:
        check_batch_size(batch_size)
        activation_fn = self.activation_fn if activation_fn is None else activation_fn
        batches = original_batches(self, pairs, batch_size, activation_fn)
        answer = Answer(
            activation_fn=activation_fn, batches=batches, num_labels=self.num_labels,
            one_by_one=self.execution.deterministic, refuse_nan=self.refuse_nan, **form,
        )  # fmt: skip
        this = ref(self)  # sentence-transformers' models are reference cycles: threads must not hold one

        def convert(scored: Scored) -> Any:
            if (model := this()) is not None:
                model.last_report = scored.report
            return answer.of(scored.logits)

        return convert

    def __getstate__(self) -> dict[str, Any]:
        """Everything but graphs, locks and threads."""
        return {**self.__dict__, "_pipeline": None, "_look": None, "_lock": None, "_worker": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = renewed_in_a_child(threading.RLock())
        self._worker = Worker()
