"""The drop-in: sentence-transformers' `CrossEncoder`, whose scores come through the pipeline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import sentence_transformers
import torch
from sentence_transformers.util.decorators import cross_encoder_predict_rank_args_decorator
from tqdm.auto import tqdm

from .compiling.warmup import WarmupReport
from .execution import Execution
from .kernels.library import build_in_background
from .layouts.choice import possible_execution
from .models.first_step import FIRST_STEP_MODULES, FirstStepScorer, first_step_scorer
from .models.loading import ask, first_step_modules, loading_errors, restore_weights, runs_on_processor
from .models.reranker import current_reranker, reader_for
from .pipeline import Pipeline
from .presets import DEFAULT_PRESET, resolve_execution
from .serving.admission import Admission
from .serving.answer import Answer
from .serving.request import PredictReport, Scored
from .serving.slow_path import slow_call, with_callers_autocast
from .serving.worker import Worker
from .text.pairs import as_list, check_pairs
from .text.prompts import FirstStep
from .text.template import tokenizer_lock

logger = logging.getLogger(__name__)


class CrossEncoder(sentence_transformers.CrossEncoder):
    """A sentence-transformers `CrossEncoder` whose `predict` and `rank` run an `Execution`.

    Same constructor, same calls, same scores. What the fast path does not take (process pools, lists of
    devices, multimodal inputs, custom modules or processing arguments) goes to sentence-transformers,
    which is said once, at INFO.

    Calls may come from many threads at once: their pairs share batches. One thread owns the device, a few
    others tokenize; they end with `close`, with the `with` block, or with the model.

    Args:
        *args: as sentence-transformers' `CrossEncoder`.
        execution: an `Execution`, or a preset's name (`xenc.PRESETS`).
        max_waiting_pairs: the most pairs that may be accepted and not answered; a call that would make it
            more raises `Overloaded` at once. None for any number. An attribute that may be changed.
        first_step: for a T5 that generates (monoT5), what it is asked; monoT5's own question by default.
        **kwargs: as sentence-transformers' `CrossEncoder`.

    Raises:
        ExecutionError: an unknown preset, buckets that do not reach max_length, or max_waiting_pairs below 1.
        ModelError: a checkpoint that cannot be loaded, max_length beyond the model's positions, or a
            `first_step` that the model cannot answer.

    Example:
        >>> model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")
        >>> model.warmup(batch_size=32)
        >>> model.predict([("how long is a marathon?", "A marathon is 42.195 km.")], batch_size=32)
    """

    last_report: PredictReport | None = None
    """What the last `predict` on the fast path cost."""

    _module_classes: Mapping[str, type[torch.nn.Module]] = MappingProxyType(
        dict.fromkeys(FIRST_STEP_MODULES, FirstStepScorer)
    )
    """Our own module is loaded without trust_remote_code."""

    def __init__(
        self,
        *args: Any,
        execution: Execution | str = DEFAULT_PRESET,
        max_waiting_pairs: int | None = None,
        first_step: FirstStep | None = None,
        **kwargs: Any,
    ) -> None:
        chosen, self._admission = resolve_execution(execution), Admission(max_waiting_pairs)
        self._first_step = first_step
        if chosen.layout == "packed" and runs_on_processor(kwargs.get("device")):
            build_in_background()
        name = args[0] if args else kwargs.get("model_name_or_path")
        with loading_errors(name):
            super().__init__(*args, **kwargs)
        restore_weights(self, name, kwargs)
        ask(self, first_step, kwargs.get("num_labels"))
        self._lock = threading.RLock()
        self._worker = Worker()
        self._pipeline: Pipeline | None = None
        self._said: set[str] = set()
        self.execution = chosen

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
        """How pairs are scored. Setting it keeps compiled graphs wherever they stay valid."""
        return self._execution

    @execution.setter
    def execution(self, execution: Execution | str) -> None:
        before, self._execution = getattr(self, "_execution", None), resolve_execution(execution)
        try:
            self._prepare()  # checks lengths and buckets now rather than at the first request
        except Exception:
            self._execution = before or self._execution
            raise

    @property
    def max_waiting_pairs(self) -> int | None:
        """The most pairs that may be accepted and not answered; None for any number. See `Overloaded`."""
        return self._admission.limit

    @max_waiting_pairs.setter
    def max_waiting_pairs(self, limit: int | None) -> None:
        self._admission.limit = limit

    @property
    def waiting_pairs(self) -> int:
        """Pairs accepted and not answered yet, whatever they are scored by."""
        return self._admission.waiting

    def warmup(
        self, batch_size: int = 32, passes: int | None = None, cache_dir: str | Path | None = None
    ) -> WarmupReport:
        """Compile, and run every shape that `predict(..., batch_size=batch_size)` can produce.

        Call it before the first request. Packed batches take no batch size, so once is enough; padded and
        bucketed ones need it once for each batch size in use. An execution that is not compiled has
        nothing to warm up.

        Args:
            batch_size: pairs per padded batch.
            passes: how often each shape runs; None for as often as it takes, three times under CUDA graphs.
            cache_dir: where to find what an earlier process compiled, and to leave what this one does. Use
                one folder per model; what another version of PyTorch left there is ignored.
        """
        pipeline = self._prepare()
        if isinstance(pipeline, str):
            return WarmupReport(shapes=(), graphs=0, seconds=0.0)
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
        """Begin to score, and return at once: the Future's result is what `predict` would return.

        Cancelling the Future drops whatever of its pairs has not run yet. Errors that `predict` raises
        come out of `Future.result()`, but for PairError and Overloaded, which are raised here.
        """
        single = self.is_singular_input(inputs)
        listed = as_list(inputs, single=single)
        pairs = check_pairs(listed)
        slow = slow_call(self, multimodal=pairs is None, apply_softmax=bool(apply_softmax))
        pipeline = slow or self._prepare()
        if isinstance(pipeline, str) or not pairs:
            self._say_once(pipeline)
            slowly = partial(
                super().predict, inputs, prompt_name, prompt, batch_size, False, activation_fn,
                apply_softmax, convert_to_numpy, convert_to_tensor,
            )  # fmt: skip
            return self._begin(len(listed), with_callers_autocast(slowly, self.device.type))
        answer = self._answer(single, convert_to_tensor, convert_to_numpy, activation_fn, apply_softmax)
        return self._submit(pipeline, pairs, self._resolve_prompt(prompt, prompt_name), batch_size, answer)

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
            PairError: an input that is not a pair of two strings; the message says which.
            NonFiniteScoreError: NaN logits; the message says for which pairs.
            CompileError: something compiled after `warmup`, with `Execution(strict=True)`.
            Overloaded: more than `max_waiting_pairs` would wait; nothing was accepted.

        `batch_size` is that of padded and bucketed batches; packed ones have token budgets instead. A
        `device` moves the model, which other threads' calls must not be using meanwhile.
        """
        single = self.is_singular_input(inputs)
        listed = as_list(inputs, single=single)
        pairs = check_pairs(listed)
        slow = slow_call(
            self, pool=pool, device=device, multimodal=pairs is None, extra=bool(kwargs),
            apply_softmax=bool(apply_softmax),
        )  # fmt: skip
        pipeline = slow or self._prepare()
        if device is not None and pairs and not isinstance(pipeline, str):
            self._worker.on_device(self.to, device).result()
            pipeline = self._prepare()
        if isinstance(pipeline, str) or not pairs:
            self._say_once(pipeline)
            with self._admission.accept_meanwhile(len(listed)):
                return super().predict(
                    inputs, prompt_name, prompt, batch_size, show_progress_bar, activation_fn, apply_softmax,
                    convert_to_numpy, convert_to_tensor, device, pool, chunk_size, **kwargs,
                )  # fmt: skip
        answer = self._answer(single, convert_to_tensor, convert_to_numpy, activation_fn, apply_softmax)
        prompt = self._resolve_prompt(prompt, prompt_name)
        with tqdm(total=len(pairs), desc="Pairs", disable=not _wants_progress(show_progress_bar)) as bar:
            future = self._submit(pipeline, pairs, prompt, batch_size, answer, on_progress=bar.update)
            try:
                return future.result()
            except BaseException:
                future.cancel()  # an interrupted caller waits for nothing any more
                raise

    def preprocess(self, *args: Any, **kwargs: Any) -> Any:
        """As sentence-transformers', one caller at a time: it changes the tokenizer's settings as it goes."""
        with tokenizer_lock(self.tokenizer):
            return super().preprocess(*args, **kwargs)

    def close(self) -> None:
        """Cancel whatever has not been answered, and end the threads. A later call starts new ones."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pipeline(self) -> Pipeline:
        """The stages that score pairs, for the model as it is now.

        Raises:
            RuntimeError: sentence-transformers itself scores with this model.
        """
        pipeline = self._prepare()
        if isinstance(pipeline, str):
            raise RuntimeError(f"{pipeline}: sentence-transformers' own predict scores, without a pipeline")
        return pipeline

    def _prepare(self) -> Pipeline | str:
        """The pipeline of the model as it is now, graphs kept where they fit; or why there is none."""
        with self._lock:
            reranker = current_reranker(self)
            if isinstance(reranker, str):
                return reranker
            self.eval()
            execution = self._execution = possible_execution(reranker, self._execution)
            current, reuse = self._pipeline, None
            if current is not None and current.is_of(reranker):
                if current.execution == execution and current.reads_like(reranker):
                    return current
                reuse = current if current.execution.graph_settings == execution.graph_settings else None
            self._pipeline = Pipeline(reranker, reader_for(self, reranker), execution, self._worker, reuse)
            return self._pipeline

    def _submit(
        self,
        pipeline: Pipeline,
        pairs: list[tuple[str, str]],
        prompt: str | None,
        batch_size: int,
        answer: Callable[[Scored], Any],
        **more: Any,
    ) -> Future[Any]:
        with self._admission.accept(len(pairs)) as ticket:
            return pipeline.submit(
                pairs, batch_size=batch_size, answer=answer, prompt=prompt, leave=ticket.leave, **more
            )

    def _begin(self, pairs: int, slowly: Callable[[], Any]) -> Future[Any]:
        """Have sentence-transformers score so many pairs beside the caller."""
        with self._admission.accept(pairs) as ticket:

            def answer() -> Any:
                try:
                    return slowly()
                finally:
                    ticket.leave()

            future = self._worker.call(answer)
            future.add_done_callback(ticket.leave)  # cancelled before it began
            return future

    def _answer(
        self, single: bool, tensor: bool, array: bool, activation_fn: Any, apply_softmax: bool | None
    ) -> Callable[[Scored], Any]:
        activation: Any = self.activation_fn if activation_fn is None else activation_fn
        answer = Answer(
            activation_fn=activation,
            apply_softmax=bool(apply_softmax), num_labels=self.num_labels, single=single, tensor=tensor,
            array=array, one_by_one=self.execution.deterministic,
        )  # fmt: skip

        def report_and_convert(scored: Scored) -> Any:
            self.last_report = scored.report
            return answer.of(scored.logits)

        return report_and_convert

    def _say_once(self, slow: Pipeline | str) -> None:
        if isinstance(slow, str) and slow not in self._said:
            self._said.add(slow)
            logger.info("%s: scored by sentence-transformers' own predict", slow)

    def __getstate__(self) -> dict[str, Any]:
        """A process pool pickles the model; graphs and locks stay behind."""
        return {**self.__dict__, "_pipeline": None, "_lock": None, "_worker": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = threading.RLock()
        self._worker = Worker()


def _wants_progress(show_progress_bar: bool | None) -> bool:
    if show_progress_bar is not None:
        return show_progress_bar
    return logging.getLogger(sentence_transformers.__name__).getEffectiveLevel() in (
        logging.INFO,
        logging.DEBUG,
    )
