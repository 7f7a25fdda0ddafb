"""Faults to put into the code under measurement, so that one can watch the gate go red (--fault)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from xenc import CrossEncoder
from xenc.collate import PaddedBatch

Forward = Callable[[PaddedBatch], torch.Tensor]


def inject(fault: str | None, model: CrossEncoder) -> None:
    """Break a warmed-up model as `fault` says: "slow:FRACTION", "recompile", or None for not at all."""
    if fault is None or getattr(model.pipeline.forward, "__module__", "") == __name__:
        return
    name, _, value = fault.partition(":")
    if name == "slow":
        model.pipeline.forward = _slowed(model.pipeline.forward, float(value))
    elif name == "recompile":
        model.pipeline.forward = _recompiled(model.pipeline.forward)
    else:
        raise ValueError(f"--fault={fault}: know slow:FRACTION and recompile")


def _slowed(forward: Forward, fraction: float) -> Forward:
    """The same answers for `fraction` more device work: every so often a batch is run twice."""
    owed = 0.0

    def slowed(batch: PaddedBatch) -> torch.Tensor:
        nonlocal owed
        owed += fraction
        while owed >= 1:
            owed -= 1
            forward(batch)
        return forward(batch)

    return slowed


def _recompiled(forward: Forward) -> Forward:
    """The same answers, with a change of global state that Dynamo guards on."""

    def recompiled(batch: PaddedBatch) -> torch.Tensor:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            return forward(batch)
        finally:
            torch.use_deterministic_algorithms(before)

    return recompiled
