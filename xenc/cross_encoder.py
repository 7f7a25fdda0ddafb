"""CrossEncoder: the sentence-transformers drop-in over the pipeline."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch
from sentence_transformers.util.decorators import cross_encoder_predict_rank_args_decorator
from tqdm.auto import tqdm

from .answer import Answer
from .checkpoints import restore_flash_weights
from .cold_start import load_graphs, save_graphs
from .compiled import WarmupReport
from .errors import ModelError
from .execution import DEFAULT_PRESET, Execution, resolve_execution
from .families import resolve_max_length
from .layouts import possible_execution
from .pairs import check_pairs
from .pipeline import Pipeline
from .request import PredictReport, Scored
from .slow_path import log_odds, slow_call, slow_model, with_callers_autocast
from .tokens import TokenizedPairs, unpadded
from .worker import Worker

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
        **kwargs: as sentence-transformers' `CrossEncoder`.

    Raises:
        ExecutionError: an unknown preset, or buckets that do not reach max_length.
        ModelError: a checkpoint that cannot be loaded, or max_length beyond the model's positions.

    Example:
        >>> model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")
        >>> model.warmup(batch_size=32)
        >>> model.predict([("how long is a marathon?", "A marathon is 42.195 km.")], batch_size=32)
    """

    last_report: PredictReport | None = None
    """What the last `predict` on the fast path cost."""

    def __init__(self, *args: Any, execution: Execution | str = DEFAULT_PRESET, **kwargs: Any) -> None:
        chosen = resolve_execution(execution)
        try:
            super().__init__(*args, **kwargs)
        except (OSError, ValueError) as error:
            name = args[0] if args else kwargs.get("model_name_or_path")
            raise ModelError(
                f"cannot load {name!r} as a cross-encoder: give a model's name, or a directory with "
                f"config.json, weights and tokenizer. The loader said: {error}"
            ) from error
        self._restore_weights(*args, **kwargs)
        self._lock = threading.RLock()
        self._worker = Worker()
        self._pipeline: Pipeline | None = None
        self._said: set[str] = set()
        self.execution = chosen

    def _restore_weights(self, name: str | None = None, *_: Any, **kwargs: Any) -> None:
        """Weights of flash-attn's XLM-RoBERTa, which transformers leaves at random for its own."""
        name, given = kwargs.get("model_name_or_path", name), kwargs.get("model_kwargs") or {}
        model = self.transformers_model
        if self.backend != "torch" or name is None or model is None:
            return
        cache = kwargs.get("cache_folder") or os.getenv("SENTENCE_TRANSFORMERS_HOME")
        download = {"cache_dir": cache, "revision": kwargs.get("revision"), "subfolder": ""}
        download |= {key: given[key] for key in download if given.get(key) is not None}
        if restore_flash_weights(model, str(name), **download):
            logger.info("%s: weights converted from flash-attn's names to transformers'", name)

    @property
    def execution(self) -> Execution:
        """How pairs are scored. Setting it keeps compiled graphs wherever they stay valid."""
        return self._execution

    @execution.setter
    def execution(self, execution: Execution | str) -> None:
        before, self._execution = getattr(self, "_execution", None), resolve_execution(execution)
        try:
            if slow_model(self) is None:
                _ = self.pipeline  # checks lengths and buckets now rather than at the first request
        except Exception:
            self._execution = before or self._execution
            raise

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
        if slow_model(self) is not None:
            return WarmupReport(shapes=(), graphs=0, seconds=0.0)
        with self._lock:
            self.eval()
            pipeline = self.pipeline
        if cache_dir is not None:
            load_graphs(Path(cache_dir))
        report = pipeline.warmup(batch_size, passes)
        if cache_dir is not None:
            save_graphs(Path(cache_dir))
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
        come out of `Future.result()`, but for a PairError, which is raised here.
        """
        single = self.is_singular_input(inputs)
        listed = _as_list(inputs, single=single)
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
            return self._worker.call(with_callers_autocast(slowly, self.device.type))
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

        `batch_size` is that of padded and bucketed batches; packed ones have token budgets instead. A
        `device` moves the model, which other threads' calls must not be using meanwhile.
        """
        single = self.is_singular_input(inputs)
        pairs = check_pairs(_as_list(inputs, single=single))
        slow = slow_model(self) or slow_call(
            self, pool=pool, device=device, multimodal=pairs is None, extra=bool(kwargs),
            apply_softmax=bool(apply_softmax),
        )  # fmt: skip
        if slow is not None or not pairs:
            self._say_once(slow)
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
        with self._lock:
            self.eval()
            pipeline = self.pipeline
        if log_odds(self) is not None:
            tokenize = partial(self._tokenize_chat, prompt=prompt, max_length=pipeline.max_length)
        else:
            tokenize = None
            pairs = [((prompt or "") + query, document) for query, document in pairs]
        return pipeline.submit(
            pairs, batch_size=batch_size, convert=convert, on_progress=on_progress, tokenize=tokenize
        )

    def _tokenize_chat(
        self, pairs: Sequence[tuple[str, str]], *, prompt: str | None, max_length: int
    ) -> TokenizedPairs:
        """Tokens as sentence-transformers' own preprocessing makes them, chat template included."""
        with self._lock:  # it changes the tokenizer's settings as it goes
            features = self.preprocess(list(pairs), prompt=prompt)
        return unpadded(features["input_ids"].tolist(), features["attention_mask"].tolist(), max_length)

    def _answer(
        self, *, single: bool, tensor: bool, array: bool, activation_fn: Any, apply_softmax: bool | None
    ) -> Callable[[Scored], Any]:
        wishes: Any = {
            "activation_fn": self.activation_fn if activation_fn is None else activation_fn,
            "apply_softmax": bool(apply_softmax),
        }
        answer = Answer(num_labels=self.num_labels, single=single, tensor=tensor, array=array, **wishes)

        def convert(scored: Scored) -> Any:
            self.last_report = scored.report
            return answer.of(scored.logits)

        return convert

    def close(self) -> None:
        """Cancel whatever has not been answered, and end the threads. A later call starts new ones."""
        self._worker.close()

    def __enter__(self) -> CrossEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pipeline(self) -> Pipeline:
        """The stages for the present execution, max_seq_length and device; graphs are kept where they fit."""
        model: Any = self.transformers_model
        current = self._pipeline
        max_length = resolve_max_length(
            self.max_seq_length, model.config, at_least=self.tokenizer.num_special_tokens_to_add(pair=True)
        )
        execution = self._execution = possible_execution(
            model, self._execution, causal=log_odds(self) is not None
        )
        reuse = None
        if current is not None and current.device == model.device:
            same_texts = current.max_length == max_length and current.tokenizer is self.tokenizer
            if current.execution == execution and same_texts:
                return current
            reuse = current if current.execution.graph_settings == execution.graph_settings else None
        score = log_odds(self)
        targets = () if score is None else (score.true_token_id, score.false_token_id)
        self._pipeline = Pipeline(
            model, self.tokenizer, max_length=max_length, execution=execution, worker=self._worker,
            targets=[target for target in targets if target is not None], reuse=reuse,
        )  # fmt: skip
        return self._pipeline

    def _say_once(self, slow: str | None) -> None:
        if slow is not None and slow not in self._said:
            self._said.add(slow)
            logger.info("%s: scored by sentence-transformers' own predict", slow)

    def __getstate__(self) -> dict[str, Any]:
        """A process pool pickles the model; graphs and locks stay behind."""
        return {**self.__dict__, "_pipeline": None, "_lock": None, "_worker": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = threading.RLock()
        self._worker = Worker()


def _as_list(inputs: Any, *, single: bool) -> list[Any]:
    listed = inputs.tolist() if isinstance(inputs, np.ndarray) else inputs
    return [listed] if single else list(listed)


def _wants_progress(show_progress_bar: bool | None) -> bool:
    if show_progress_bar is not None:
        return show_progress_bar
    return logging.getLogger(sentence_transformers.__name__).getEffectiveLevel() in (
        logging.INFO,
        logging.DEBUG,
    )
