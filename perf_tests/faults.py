"""Faults to put into the code under measurement, so that one can watch the gate go red (--fault)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from xenc import CrossEncoder
from xenc.collate import PaddedBatch
from xenc.packed_collate import PackedBatch
from xenc.pipeline import Pipeline

Forward = Callable[[Any], torch.Tensor]

STEP = 16


def inject(fault: str | None, model: CrossEncoder) -> None:
    """Break a warmed-up model as `fault` says: "slow:FRACTION", "recompile", or None for not at all."""
    if fault is None:
        return
    name, _, value = fault.partition(":")
    if name == "slow" and model.execution.layout == "packed":
        model.pipeline.forward = _slowed_packed(model.pipeline, float(value))
    elif name == "slow":
        model.pipeline.forward = _slowed(model.pipeline.forward, float(value))
    elif name == "recompile":
        model.pipeline.forward = _recompiled(model.pipeline.forward)
    else:
        raise ValueError(f"--fault={fault}: know slow:FRACTION and recompile")


def _slowed(forward: Forward, fraction: float) -> Forward:
    """The same answers for `fraction` more tokens of device work: each batch also runs cut to that length.

    Cut to a multiple of 16, a batch has a shape that was warmed up; what is left over is owed to the next.
    """
    owed = 0.0  # padded length, in tokens

    def slowed(batch: PaddedBatch) -> torch.Tensor:
        nonlocal owed
        _, length = batch.shape
        owed += fraction * length
        while owed >= STEP:
            extra = min(length, int(owed) // STEP * STEP)
            owed -= extra
            forward(_cut(batch, extra))
        return forward(batch)

    return slowed


def _slowed_packed(pipeline: Pipeline, fraction: float) -> Forward:
    """The same, with dummy batches of the sizes there are; what is left over is owed to the next."""
    forward, owed = pipeline.forward, 0.0  # tokens
    dummies = {batch.shape[0]: batch for batch in pipeline.every_shape(batch_size=1)}

    def slowed(batch: PackedBatch) -> torch.Tensor:
        nonlocal owed
        tokens, _ = batch.shape
        owed += fraction * tokens
        while owed >= min(dummies):
            extra = max(size for size in dummies if size <= owed)
            owed -= extra
            forward(dummies[extra])
        return forward(batch)

    return slowed


def _cut(batch: PaddedBatch, length: int) -> PaddedBatch:
    types = batch.token_type_ids
    return PaddedBatch(
        input_ids=batch.input_ids[:, :length].contiguous(),
        attention_mask=batch.attention_mask[:, :length].contiguous(),
        token_type_ids=None if types is None else types[:, :length].contiguous(),
    )


def _recompiled(forward: Forward) -> Forward:
    """The same answers, with graphs dropped once and then compiled under two global states in turn."""
    done = False

    def recompiled(batch: PaddedBatch) -> torch.Tensor:
        nonlocal done
        if not done:
            done = True
            torch._dynamo.reset()
            before = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(not before, warn_only=True)
            try:
                forward(batch)
            finally:
                torch.use_deterministic_algorithms(before)
        return forward(batch)

    return recompiled
