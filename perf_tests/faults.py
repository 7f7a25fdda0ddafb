"""Faults to put into the code under measurement, so that one can watch the gate go red (--fault)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from xenc import CrossEncoder
from xenc.collate import PaddedBatch

Forward = Callable[[PaddedBatch], torch.Tensor]


def inject(fault: str | None, model: CrossEncoder) -> None:
    """Break a warmed-up model as `fault` says: "slow:FRACTION", "recompile", or None for not at all."""
    if fault is None:
        return
    name, _, value = fault.partition(":")
    if name == "slow":
        model.pipeline.forward = _slowed(model.pipeline.forward, float(value))
    elif name == "recompile":
        model.pipeline.forward = _recompiled(model.pipeline.forward)
    else:
        raise ValueError(f"--fault={fault}: know slow:FRACTION and recompile")


def _slowed(forward: Forward, fraction: float) -> Forward:
    """The same answers for `fraction` more tokens of device work: some batches run more than once."""
    owed_tokens = 0.0

    def slowed(batch: PaddedBatch) -> torch.Tensor:
        nonlocal owed_tokens
        tokens = batch.input_ids.numel()
        owed_tokens += fraction * tokens
        while owed_tokens >= tokens:
            owed_tokens -= tokens
            forward(batch)
        return forward(batch)

    return slowed


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
