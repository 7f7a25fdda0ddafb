"""What the fast path does not take, and sentence-transformers scores by itself: the reasons, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer

from .causal import log_odds
from .encoder_decoder.scorer import FirstStepScorer, first_step_scorer


def slow_model(cross_encoder: Any) -> str | None:
    """Why a model is sentence-transformers' to run; None if the fast path takes it."""
    first, model = cross_encoder[0], cross_encoder.transformers_model
    known_head = log_odds(cross_encoder) is not None or first_step_scorer(cross_encoder) is not None
    task = getattr(first, "transformer_task", None)
    return _first_that_holds(
        (f"the {cross_encoder.backend} backend", cross_encoder.backend != "torch"),
        ("placement by a device map", bool(getattr(model, "hf_device_map", None))),
        ("processing arguments saved with the model", bool(getattr(first, "processing_kwargs", None))),
        ("a forward pass or preprocessing of its own", _has_its_own_steps(cross_encoder)),
        ("a model of several modules", len(cross_encoder) != 1 and not known_head),
        (
            "a head other than sequence classification",
            str(task) != "sequence-classification" and not known_head,
        ),
        ("a chat template", "message" in getattr(first, "modality_config", {}) and not known_head),
    )


def _has_its_own_steps(cross_encoder: Any) -> bool:
    """Whether a step that the fast path does by itself has been overridden."""
    steps = [getattr(type(cross_encoder), name) for name in ("forward", "preprocess")]
    packages = {step.__module__.partition(".")[0] for step in steps}
    overridden = {"forward", "preprocess"} & {*vars(cross_encoder), *vars(cross_encoder[0])}
    known = {"sentence_transformers", (__package__ or "xenc").partition(".")[0], "torch"}
    ours = type(cross_encoder[0]) in (Transformer, FirstStepScorer)
    return not ours or bool(overridden) or not packages <= known


def slow_call(
    cross_encoder: Any, *, pool: Any, device: Any, multimodal: bool, extra: bool, apply_softmax: bool
) -> str | None:
    """Why one call is sentence-transformers' to answer; None if the fast path takes it."""
    device_type = cross_encoder.device.type
    return _first_that_holds(
        ("a process pool", pool is not None),
        ("a list of devices", isinstance(device, list)),
        ("multimodal inputs", multimodal),
        ("processing arguments", extra),
        ("a softmax over one label", apply_softmax and cross_encoder.num_labels == 1),
        # autocast belongs to the caller's thread, and the fast path has a thread of its own
        ("autocast", torch.is_autocast_enabled(device_type)),
    )


def with_callers_autocast(job: Callable[[], Any], device_type: str) -> Callable[[], Any]:
    """The job as another thread must run it to answer as this one would: autocast belongs to a thread."""
    if not torch.is_autocast_enabled(device_type):
        return job
    dtype = torch.get_autocast_dtype(device_type)

    def run() -> Any:
        with torch.autocast(device_type, dtype=dtype):
            return job()

    return run


def _first_that_holds(*reasons: tuple[str, bool]) -> str | None:
    return next((reason for reason, holds in reasons if holds), None)
