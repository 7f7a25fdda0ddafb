"""Loading beyond sentence-transformers: clear errors, flash-attn's XLM-RoBERTa weights, T5 rerankers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
from transformers import AutoConfig

from ..errors import ModelError, XencError, first_line, of_both_kinds
from ..text.prompts import FirstStep
from .checkpoints import restore_flash_weights
from .first_step import FirstStepScorer, first_step_scorer, generates, without_labels

logger = logging.getLogger(__name__)


@contextmanager
def loading_errors(name: object) -> Iterator[None]:
    """Turn a loader's error (OSError, ValueError, UnpicklingError) into a ModelError that is one too."""
    try:
        yield
    except XencError:  # perhaps a ValueError itself
        raise
    except UnpicklingError as error:
        refused = ModelError(
            f"cannot load {name!r} as a cross-encoder: its weights are a pickle that holds more than "
            f"tensors, which is not run ({first_line(error)}). Have somebody you trust save them as "
            ".safetensors."
        )
        raise of_both_kinds(refused, error) from error
    except (OSError, ValueError) as error:
        what = "cannot make a cross-encoder" if name is None else f"cannot load {name!r} as a cross-encoder"
        incomplete = isinstance(error, OSError) or not _has_configuration(name)
        remedy = f": {_GIVE}. The loader said" if name is not None and incomplete else ""
        raise of_both_kinds(ModelError(f"{what}{remedy}: {error}"), error) from error


_GIVE: Final = "give a model's name, or a directory with config.json, weights and tokenizer"


def _has_configuration(name: object) -> bool:
    """False for a directory that holds no model; True for a name on the hub, of which nothing is known."""
    folder = Path(str(name))
    return not folder.is_dir() or any((folder / file).exists() for file in ("config.json", "modules.json"))


def first_step_modules(
    name: str, first_step: FirstStep | None, loading: dict[str, Any]
) -> list[FirstStepScorer] | None:
    """The module of a T5 that generates, whose head as a classifier would be random; None for others.

    Args:
        name: the checkpoint's name or path.
        first_step: overrides what is stored with the checkpoint.
        loading: the keyword arguments that sentence-transformers loads modules with.
    """
    wanted = ("revision", "token", "local_files_only", "trust_remote_code")
    options = {"cache_dir": loading.get("cache_folder"), **{key: loading.get(key) for key in wanted}}
    options |= without_labels(loading.get("config_kwargs"))
    config = AutoConfig.from_pretrained(name, **options)
    return [FirstStepScorer.load(name, first_step=first_step, **loading)] if generates(config) else None


def restore_weights(cross_encoder: Any, name: str | None, loading: dict[str, Any]) -> None:
    """Load the weights of flash-attn's XLM-RoBERTa, which transformers initialises at random.

    Args:
        cross_encoder: a loaded sentence-transformers `CrossEncoder`.
        name: the checkpoint's name or path.
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
        ModelError: a first step for any other model, or a number of labels other than its number of scores.
    """
    scorer = first_step_scorer(cross_encoder)
    if scorer is None and first_step is not None:
        raise ModelError(
            f"first_step={first_step!r}: {type(cross_encoder.transformers_model).__name__} is not a T5 "
            "that generates. Leave first_step out."
        )
    if scorer is None:
        return
    scorer.first_step = first_step or scorer.first_step
    if num_labels not in (None, scorer.num_labels):
        raise ModelError(
            f"num_labels={num_labels}: this T5 has {scorer.num_labels} scores for each pair, one for "
            "each of its decoder_prefixes and targets. Leave num_labels out."
        )


def runs_on_processor(device: object) -> bool:
    """Whether a model with this device runs on a CPU; None is CUDA if there is one."""
    return str(device) == "cpu" or (device is None and not torch.cuda.is_available())
