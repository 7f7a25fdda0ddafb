"""What loading a checkpoint takes beyond sentence-transformers: errors that say what to do, the weights of
flash-attn's XLM-RoBERTa, and T5 rerankers that answer with a word.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig

from ..errors import ModelError
from ..text.prompts import FirstStep
from .checkpoints import restore_flash_weights
from .first_step import FirstStepScorer, first_step_scorer, generates, without_labels

logger = logging.getLogger(__name__)


@contextmanager
def loading_errors(name: object) -> Iterator[None]:
    """Turn what loaders raise for a checkpoint that cannot be loaded into a ModelError that names it."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot load {name!r} as a cross-encoder: give a model's name, or a directory with "
            f"config.json, weights and tokenizer. The loader said: {error}"
        ) from error


def first_step_modules(
    name: str, first_step: FirstStep | None, loading: dict[str, Any]
) -> list[FirstStepScorer] | None:
    """The module of a T5 that generates, whose head as a classifier would be random; None for others.

    Args:
        name: of the checkpoint.
        first_step: what to ask, in place of what is stored with the checkpoint.
        loading: what sentence-transformers loads modules with.
    """
    wanted = ("revision", "token", "local_files_only", "trust_remote_code")
    options = {"cache_dir": loading.get("cache_folder"), **{key: loading.get(key) for key in wanted}}
    config = AutoConfig.from_pretrained(name, **options, **without_labels(loading.get("config_kwargs")))
    return [FirstStepScorer.load(name, first_step=first_step, **loading)] if generates(config) else None


def restore_weights(cross_encoder: Any, name: str | None, loading: dict[str, Any]) -> None:
    """Load the weights of flash-attn's XLM-RoBERTa, which transformers leaves at random for its own.

    Args:
        cross_encoder: loaded.
        name: of the checkpoint.
        loading: the keyword arguments that it was loaded with.
    """
    model, given = cross_encoder.transformers_model, loading.get("model_kwargs") or {}
    if cross_encoder.backend != "torch" or name is None or model is None:
        return
    cache = loading.get("cache_folder") or os.getenv("SENTENCE_TRANSFORMERS_HOME")
    download = {"cache_dir": cache, "revision": loading.get("revision"), "subfolder": ""}
    download |= {key: given[key] for key in download if given.get(key) is not None}
    if restore_flash_weights(model, str(name), **download):
        logger.info("%s: weights converted from flash-attn's names to transformers'", name)


def ask(cross_encoder: Any, first_step: FirstStep | None, num_labels: int | None) -> None:
    """Set what a T5 reranker is asked, in place of what is stored with it.

    Raises:
        ModelError: a first step for any other model; another number of labels than it has scores.
    """
    scorer = first_step_scorer(cross_encoder)
    if scorer is None:
        if first_step is not None:
            raise ModelError(
                f"first_step={first_step!r}: {type(cross_encoder.transformers_model).__name__} is not a T5 "
                "that generates. Leave first_step out."
            )
        return
    scorer.first_step = first_step or scorer.first_step
    if num_labels not in (None, scorer.num_labels):
        raise ModelError(
            f"num_labels={num_labels}: this T5 has {scorer.num_labels} scores for each pair, one for "
            "each of its decoder_prefixes and targets. Leave num_labels out."
        )


def runs_on_processor(device: object) -> bool:
    """Whether a model given this device runs on a processor; None is CUDA where there is one."""
    return str(device) == "cpu" or (device is None and not torch.cuda.is_available())
