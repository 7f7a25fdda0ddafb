"""A sentence-transformers CrossEncoder with an execution: its stages, its graphs and its threads."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import sentence_transformers
import torch
from transformers import AutoConfig

from .admission import Admission
from .causal import log_odds, target_tokens
from .checkpoints import restore_flash_weights
from .encoder_decoder.first_step import FirstStep
from .encoder_decoder.scorer import FirstStepScorer, first_step_scorer, generates, without_labels
from .errors import ModelError
from .execution import Execution
from .families import resolve_max_length
from .kernels.library import build_in_background
from .layouts.choice import possible_execution
from .pair_template import tokenizer_lock
from .pipeline import Pipeline
from .prepared import WarmupReport
from .presets import DEFAULT_PRESET, resolve_execution
from .slow_path import slow_model
from .worker import Worker

logger = logging.getLogger(__name__)


class ExecutedModel(sentence_transformers.CrossEncoder):
    """What of xenc's `CrossEncoder` says how pairs are scored; see there."""

    _module_classes: Mapping[str, type[torch.nn.Module]] = MappingProxyType(
        {f"{FirstStepScorer.__module__}.{FirstStepScorer.__name__}": FirstStepScorer}
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
        chosen, admission = resolve_execution(execution), Admission(max_waiting_pairs)
        self._first_step = first_step
        if chosen.layout == "packed" and _runs_on_processor(kwargs.get("device")):
            build_in_background()
        try:
            super().__init__(*args, **kwargs)
        except ModelError:
            raise
        except (OSError, ValueError) as error:
            name = args[0] if args else kwargs.get("model_name_or_path")
            raise ModelError(
                f"cannot load {name!r} as a cross-encoder: give a model's name, or a directory with "
                f"config.json, weights and tokenizer. The loader said: {error}"
            ) from error
        self._restore_weights(*args, **kwargs)
        self._ask(first_step, kwargs.get("num_labels"))
        self._lock = threading.RLock()
        self._worker, self._admission = Worker(), admission
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

    def _load_default_modules(self, model_name_or_path: str, **loading: Any) -> Any:  # type: ignore[override]
        """A T5 that generates is scored by what it generates; its head as a classifier would be random."""
        wanted = ("revision", "token", "local_files_only", "trust_remote_code")
        options = {"cache_dir": loading.get("cache_folder"), **{key: loading.get(key) for key in wanted}}
        options |= without_labels(loading.get("config_kwargs"))
        config = AutoConfig.from_pretrained(model_name_or_path, **options)
        if not generates(config):
            return super()._load_default_modules(model_name_or_path, **loading)
        loading |= {"backend": self.backend, "first_step": self._first_step}
        return [FirstStepScorer.load(model_name_or_path, **loading)], {}

    def _ask(self, first_step: FirstStep | None, num_labels: int | None) -> None:
        """Another question than the one stored with the model."""
        scorer = first_step_scorer(self)
        if first_step is not None and scorer is None:
            raise ModelError(
                f"first_step={first_step!r}: {type(self.transformers_model).__name__} is not a T5 that "
                "generates. Leave first_step out."
            )
        if scorer is not None:
            scorer.first_step = first_step or scorer.first_step
            if num_labels not in (None, scorer.num_labels):
                raise ModelError(
                    f"num_labels={num_labels}: this T5 has {scorer.num_labels} scores for each pair, one for "
                    "each of its decoder_prefixes and targets. Leave num_labels out."
                )

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
            if slow_model(self) is None:
                _ = self.pipeline  # checks lengths and buckets now rather than at the first request
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
        if slow_model(self) is not None:
            return WarmupReport(shapes=(), graphs=0, seconds=0.0)
        with self._lock:
            self.eval()
            pipeline = self.pipeline
        report = pipeline.warmup(batch_size, passes, None if cache_dir is None else Path(cache_dir))
        logger.info("warmed up %d shapes in %.1f s", len(report.shapes), report.seconds)
        return report

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
        """The stages for the present execution, max_seq_length and device; graphs are kept where they fit."""
        model: Any = self.transformers_model
        current = self._pipeline
        scorer = first_step_scorer(self)
        asked = None if scorer is None else scorer.ids
        fewest = (
            self.tokenizer.num_special_tokens_to_add(pair=True) if scorer is None else scorer.fixed_tokens
        )
        max_length = resolve_max_length(self.max_seq_length, model.config, at_least=fewest)
        execution = self._execution = possible_execution(
            model, self._execution, causal=log_odds(self) is not None
        )
        reuse = None
        targets = target_tokens(self)
        if current is not None and current.is_of(model, self.tokenizer, targets, asked):
            same_texts = current.max_length == max_length and current.tokenizer is self.tokenizer
            if current.execution == execution and same_texts:
                return current
            reuse = current if current.execution.graph_settings == execution.graph_settings else None
        self._pipeline = Pipeline(
            model, self.tokenizer, max_length=max_length, execution=execution, worker=self._worker,
            targets=targets, asked=asked, reuse=reuse,
        )  # fmt: skip
        return self._pipeline

    def __getstate__(self) -> dict[str, Any]:
        """A process pool pickles the model; graphs and locks stay behind."""
        return {**self.__dict__, "_pipeline": None, "_lock": None, "_worker": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = threading.RLock()
        self._worker = Worker()


def _runs_on_processor(device: object) -> bool:
    """Whether a model given this device runs on a processor; None is CUDA where there is one."""
    return str(device) == "cpu" or (device is None and not torch.cuda.is_available())
