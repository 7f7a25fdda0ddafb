"""Faults to put into the code under measurement, to watch the gate go red (--fault).

They use only a model's `pipeline` and layout, so they break a model of any revision of xenc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import FunctionType
from typing import Any
from weakref import finalize

import torch
from torch._dynamo.eval_frame import remove_from_cache

Forward = Callable[[Any], torch.Tensor]

STEP = 16

KNOWN = "slow:FRACTION, recompile, eager, kernel and memory:BYTES"


def inject(fault: str | None, model: Any) -> None:
    """Break a warmed-up model as `fault` says, or not at all if it is None.

    Args:
        fault: "slow:FRACTION", that much more device work; "recompile", graphs dropped and compiled under
            two states; "eager", a compiled function that has used up its recompile limit; "kernel", one
            more, negligible kernel per forward pass; "memory:BYTES", so much more held in each of them.
        model: a CrossEncoder of any revision.
    """
    if fault is None:
        return
    pipeline = model.pipeline
    name, _, value = fault.partition(":")
    broken = {
        "slow": lambda: _slowed(pipeline, model.execution.layout == "packed", float(value)),
        "recompile": lambda: _recompiled(pipeline),
        "eager": lambda: _eager(pipeline.forward),
        "kernel": lambda: _one_kernel_more(pipeline.forward),
        "memory": lambda: _holding(pipeline.forward, int(value)),
    }
    if name not in broken:
        raise ValueError(f"--fault={fault}: know {KNOWN}")
    pipeline.forward = broken[name]()


def _slowed(pipeline: Any, packed: bool, fraction: float) -> Forward:
    """The same answers for `fraction` more tokens of device work, in shapes that were warmed up.

    Each padded batch also runs cut to a multiple of 16 tokens, each packed one along with dummy batches; the
    remainder is added to the next batch's.
    """
    forward, owed = pipeline.forward, 0.0  # tokens; of padded batches: of their length
    dummies = {batch.shape[0]: batch for batch in pipeline.every_shape(batch_size=1)} if packed else {}

    def slowed(batch: Any) -> torch.Tensor:
        nonlocal owed
        size = batch.shape[0 if packed else 1]
        owed += fraction * size
        while owed >= min(dummies, default=STEP):
            extra = min(size, int(owed) // STEP * STEP)
            if packed:
                extra = max(each for each in dummies if each <= owed)
            owed -= extra
            forward(dummies[extra] if packed else _cut(batch, extra))
        return forward(batch)

    return slowed


def _cut(batch: Any, length: int) -> Any:
    types = batch.token_type_ids
    return replace(
        batch,
        input_ids=batch.input_ids[:, :length].contiguous(),
        attention_mask=batch.attention_mask[:, :length].contiguous(),
        token_type_ids=None if types is None else types[:, :length].contiguous(),
    )


def _recompiled(pipeline: Any) -> Forward:
    """The same answers, with graphs dropped once and then compiled under two global states in turn."""
    forward, done = pipeline.forward, False

    def recompiled(batch: Any) -> torch.Tensor:
        nonlocal done
        if not done:
            done = True
            _drop_graphs(pipeline)
            before = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(not before, warn_only=True)
            try:
                forward(batch)
            finally:
                torch.use_deterministic_algorithms(before)
        return forward(batch)

    return recompiled


def _drop_graphs(pipeline: Any) -> None:
    """Only this model's graphs, where they can be told apart: a sound model may run beside it."""
    function = getattr(pipeline.compiled, "_own_function", None)
    if function is None:
        torch._dynamo.reset()
    else:
        remove_from_cache(function)


def _eager(forward: Forward) -> Forward:
    """The same answers, and in each pass a compiled function that silently runs eagerly."""
    code = _doubled.__code__.replace(co_name="exhausted")  # with graphs of its own
    function = FunctionType(code, _doubled.__globals__, "exhausted")
    exhausted = torch.compile(function, backend="eager", dynamic=False)
    for size in range(2, 3 + torch._dynamo.config.recompile_limit):  # 0 and 1 are special to Dynamo
        exhausted(torch.ones(size))

    def eager(batch: Any) -> torch.Tensor:
        exhausted(torch.ones(1000))
        return forward(batch)

    finalize(eager, remove_from_cache, function)  # or watches would see it for ever
    return eager


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def _one_kernel_more(forward: Forward) -> Forward:
    """The same answers, and one kernel on the first row of the logits, whose result is dropped."""

    def one_kernel_more(batch: Any) -> torch.Tensor:
        logits = forward(batch)
        logits[:1].neg()
        return logits

    return one_kernel_more


def _holding(forward: Forward, count: int) -> Forward:
    """The same answers, with `count` bytes more of the device's memory held while a batch runs."""

    def holding(batch: Any) -> torch.Tensor:
        held = torch.empty(count, dtype=torch.uint8, device=batch.input_ids.device)
        logits = forward(batch)
        del held
        return logits

    return holding
