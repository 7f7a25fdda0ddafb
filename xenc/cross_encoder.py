"""CrossEncoder: the sentence-transformers drop-in over the pipeline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import sentence_transformers
import torch
from sentence_transformers.util.decorators import cross_encoder_predict_rank_args_decorator
from torch import Tensor

from .compiled import WARMUP_PASSES, WarmupReport
from .errors import ModelError
from .execution import DEFAULT_PRESET, Execution, resolve_execution
from .families import resolve_max_length
from .pipeline import Pipeline, PredictReport
from .tokens import check_pairs

logger = logging.getLogger(__name__)


class CrossEncoder(sentence_transformers.CrossEncoder):
    """A sentence-transformers `CrossEncoder` whose `predict` and `rank` run an `Execution`.

    Same constructor, same calls, same scores. What the fast path does not take (process pools, lists of
    devices, multimodal inputs, custom modules or processing arguments) goes to sentence-transformers,
    which is said once, at INFO.

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
        self._lock = threading.RLock()
        self._pipeline: Pipeline | None = None
        self._said: set[str] = set()
        self.execution = chosen

    @property
    def execution(self) -> Execution:
        """How pairs are scored. Setting it keeps compiled graphs wherever they stay valid."""
        return self._execution

    @execution.setter
    def execution(self, execution: Execution | str) -> None:
        before, self._execution = getattr(self, "_execution", None), resolve_execution(execution)
        try:
            if self._slow_model() is None:
                _ = self.pipeline  # checks lengths and buckets now rather than at the first request
        except Exception:
            self._execution = before or self._execution
            raise

    def warmup(self, batch_size: int = 32, passes: int = WARMUP_PASSES) -> WarmupReport:
        """Compile, and run every shape that `predict(..., batch_size=batch_size)` can produce.

        Call it before the first request, in the thread that will predict, once for each batch size in
        use. An execution that is not compiled has nothing to warm up.
        """
        if self._slow_model() is not None:
            return WarmupReport(shapes=(), graphs=0, seconds=0.0)
        with self._lock, torch.inference_mode():
            self.eval()
            report = self.pipeline.warmup(batch_size, passes)
        logger.info("warmed up %d shapes in %.1f s", len(report.shapes), report.seconds)
        return report

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
        """
        single = self.is_singular_input(inputs)
        pairs = check_pairs(_as_list(inputs, single=single))
        slow = self._slow_model() or _slow_call(
            ("a process pool", pool is not None),
            ("a list of devices", isinstance(device, list)),
            ("multimodal inputs", pairs is None),
            ("processing arguments", bool(kwargs)),
            ("a softmax over one label", bool(apply_softmax) and self.num_labels == 1),
        )
        if slow is not None or not pairs:
            self._say_once(slow)
            return super().predict(
                inputs, prompt_name, prompt, batch_size, show_progress_bar, activation_fn, apply_softmax,
                convert_to_numpy, convert_to_tensor, device, pool, chunk_size, **kwargs,
            )  # fmt: skip
        prefix = self._resolve_prompt(prompt, prompt_name) or ""
        with self._lock, torch.inference_mode():
            if device is not None:
                self.to(device)
            self.eval()
            scored = self.pipeline.score(
                [(prefix + query, document) for query, document in pairs],
                batch_size=batch_size,
                show_progress=_wants_progress(show_progress_bar),
            )
            self.last_report = scored.report
            activate: Any = self.activation_fn if activation_fn is None else activation_fn
            scores = activate(scored.logits)
            if self.num_labels == 1 and scores.ndim > 1:
                scores = scores.squeeze(-1)
            elif apply_softmax and scores.ndim > 1:
                scores = torch.softmax(scores, dim=1)
            return _converted(scores, single=single, tensor=convert_to_tensor, array=convert_to_numpy)

    @property
    def pipeline(self) -> Pipeline:
        """The stages for the present execution, max_seq_length and device; graphs are kept where they fit."""
        model: Any = self.transformers_model
        execution, current = self._execution, self._pipeline
        max_length = resolve_max_length(
            self.max_seq_length, model.config, at_least=self.tokenizer.num_special_tokens_to_add(pair=True)
        )
        if execution.attention == "sdpa" and not model._supports_sdpa:
            logger.warning(
                "%s has no SDPA attention: execution.attention is now 'eager'", model.config.model_type
            )
            execution = self._execution = replace(execution, attention="eager")
        if current is not None and current.device == model.device:
            same_texts = current.max_length == max_length and current.tokenizer is self.tokenizer
            if current.execution == execution and same_texts:
                return current
            same_graphs = current.execution.graph_settings == execution.graph_settings
            compiled = current.compiled if same_graphs else None
        else:
            compiled = None
        pipeline = Pipeline(
            model, self.tokenizer, max_length=max_length, execution=execution, compiled=compiled
        )
        model.set_attn_implementation(execution.attention)  # only once nothing can be refused any more
        self._pipeline = pipeline
        return pipeline

    def _slow_model(self) -> str | None:
        """Why this model is sentence-transformers' to run; None if the fast path takes it."""
        first: Any = self[0]
        return _slow_call(
            (f"the {self.backend} backend", self.backend != "torch"),
            ("a model of several modules", len(self) != 1),
            ("a head other than sequence classification", _task(first) != "sequence-classification"),
            ("a chat template", "message" in getattr(first, "modality_config", {})),
            ("processing arguments saved with the model", bool(getattr(first, "processing_kwargs", None))),
            ("placement by a device map", bool(getattr(self.transformers_model, "hf_device_map", None))),
        )

    def _say_once(self, slow: str | None) -> None:
        if slow is not None and slow not in self._said:
            self._said.add(slow)
            logger.info("%s: scored by sentence-transformers' own predict", slow)

    def __getstate__(self) -> dict[str, Any]:
        """A process pool pickles the model; graphs and locks stay behind."""
        return {**self.__dict__, "_pipeline": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = threading.RLock()


def _task(module: Any) -> str | None:
    task = getattr(module, "transformer_task", None)
    return str(task) if task is not None else None


def _slow_call(*reasons: tuple[str, bool]) -> str | None:
    return next((reason for reason, holds in reasons if holds), None)


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


def _converted(scores: Tensor, *, single: bool, tensor: bool, array: bool) -> Any:
    result: Any
    if tensor:
        result = scores
    elif array:
        result = scores.float().cpu().numpy()
    else:
        result = list(scores)
    return result[0] if single else result
