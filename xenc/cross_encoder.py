"""CrossEncoder: the calls of the sentence-transformers drop-in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import sentence_transformers
import torch
from sentence_transformers.util.decorators import cross_encoder_predict_rank_args_decorator
from tqdm.auto import tqdm

from .answer import Answer
from .causal import log_odds, prompted
from .encoder_decoder.scorer import first_step_scorer
from .executed import ExecutedModel
from .pairs import as_list, check_pairs
from .request import PredictReport, Scored
from .slow_path import slow_call, slow_model, with_callers_autocast

logger = logging.getLogger(__name__)


class CrossEncoder(ExecutedModel):
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
        reason = slow_model(self) or slow_call(
            self, pool=None, device=None, multimodal=pairs is None, extra=False,
            apply_softmax=bool(apply_softmax),
        )  # fmt: skip
        if reason is not None or not pairs:
            self._say_once(reason)
            slowly = partial(
                super().predict, inputs, prompt_name, prompt, batch_size, False, activation_fn,
                apply_softmax, convert_to_numpy, convert_to_tensor,
            )  # fmt: skip
            return self._begin(len(listed), with_callers_autocast(slowly, self.device.type))
        convert = self._answer(
            single=single, tensor=convert_to_tensor, array=convert_to_numpy,
            activation_fn=activation_fn, apply_softmax=apply_softmax,
        )  # fmt: skip
        return self._submit(pairs, self._resolve_prompt(prompt, prompt_name), batch_size, convert)

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
        slow = slow_model(self) or slow_call(
            self, pool=pool, device=device, multimodal=pairs is None, extra=bool(kwargs),
            apply_softmax=bool(apply_softmax),
        )  # fmt: skip
        if slow is not None or not pairs:
            self._say_once(slow)
            with self._admission.accept_meanwhile(len(listed)):
                return super().predict(
                    inputs, prompt_name, prompt, batch_size, show_progress_bar, activation_fn, apply_softmax,
                    convert_to_numpy, convert_to_tensor, device, pool, chunk_size, **kwargs,
                )  # fmt: skip
        if device is not None:
            self._worker.on_device(self.to, device).result()
        convert = self._answer(
            single=single, tensor=convert_to_tensor, array=convert_to_numpy,
            activation_fn=activation_fn, apply_softmax=apply_softmax,
        )  # fmt: skip
        prompt = self._resolve_prompt(prompt, prompt_name)
        with tqdm(total=len(pairs), desc="Pairs", disable=not _wants_progress(show_progress_bar)) as bar:
            future = self._submit(pairs, prompt, batch_size, lambda scored: scored, on_progress=bar.update)
            try:
                scored = future.result()
            except BaseException:
                future.cancel()  # an interrupted caller waits for nothing any more
                raise
        with torch.inference_mode():
            return convert(scored)

    def _submit(
        self,
        pairs: list[tuple[str, str]],
        prompt: str | None,
        batch_size: int,
        convert: Callable[[Scored], Any],
        on_progress: Callable[[int], object] = lambda _: None,
    ) -> Future[Any]:
        with self._admission.accept(len(pairs)) as ticket:
            with self._lock:
                self.eval()
                pipeline = self.pipeline
            tokenize = None
            scorer = first_step_scorer(self)
            if scorer is not None:
                tokenize = scorer.read(pipeline.max_length, prompt)
            elif log_odds(self) is not None:
                tokenize = prompted(self, prompt, pipeline.max_length)
            elif prompt:
                pairs = [(prompt + query, document) for query, document in pairs]
            return pipeline.submit(
                pairs, batch_size=batch_size, convert=convert, on_progress=on_progress, tokenize=tokenize,
                leave=ticket.leave,
            )  # fmt: skip

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
        self, *, single: bool, tensor: bool, array: bool, activation_fn: Any, apply_softmax: bool | None
    ) -> Callable[[Scored], Any]:
        wishes: Any = {
            "activation_fn": self.activation_fn if activation_fn is None else activation_fn,
            "apply_softmax": bool(apply_softmax),
            "one_by_one": self.execution.deterministic,
        }
        answer = Answer(num_labels=self.num_labels, single=single, tensor=tensor, array=array, **wishes)

        def convert(scored: Scored) -> Any:
            self.last_report = scored.report
            return answer.of(scored.logits)

        return convert

    def _say_once(self, slow: str | None) -> None:
        if slow is not None and slow not in self._said:
            self._said.add(slow)
            logger.info("%s: scored by sentence-transformers' own predict", slow)


def _wants_progress(show_progress_bar: bool | None) -> bool:
    if show_progress_bar is not None:
        return show_progress_bar
    return logging.getLogger(sentence_transformers.__name__).getEffectiveLevel() in (
        logging.INFO,
        logging.DEBUG,
    )
