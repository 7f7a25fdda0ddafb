"""Where an arm's time goes: by stage and by kernel. Apart from the timed blocks, which it would burden."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from perf_tests.arms import Arm
from perf_tests.device_thread import on_device_thread
from perf_tests.workloads import Pair
from xenc.gate.paired.kernels import PassProfile, profile_pass
from xenc.gate.paired.stages import StageClock


def stage_seconds(arm: Arm, rounds: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """Mean seconds per round of each stage that this revision has a seam for."""
    clock = StageClock(torch.cuda.synchronize if arm.device == "cuda" else None)
    with _on_the_clock(arm.model.pipeline, clock):
        for pairs in rounds:
            arm.logits(pairs)
    return {stage: seconds / len(rounds) for stage, seconds in clock.seconds.items()}


def one_pass(arm: Arm, pairs: Sequence[Pair]) -> PassProfile:
    """Kernels and peak memory of scoring the pairs once."""
    on_device = on_device_thread(arm.model)
    return profile_pass(lambda: arm.logits(pairs), device=arm.device, on_device=on_device)


@contextmanager
def _on_the_clock(pipeline: Any, clock: StageClock) -> Iterator[None]:
    """Time the stages' callables where they hang on the pipeline; an older revision may lack some."""
    collator, worker = pipeline.collator, getattr(pipeline, "_worker", None)
    timed_collator = SimpleNamespace(collate=clock.timed("collate", collator.collate))
    replaced = [
        _replace(pipeline, "collator", lambda _: timed_collator),
        _replace(pipeline, "forward", partial(clock.timed, "forward")),
        _replace(pipeline, "_tokenize", partial(clock.timed, "tokenize")),
        _replace(getattr(pipeline, "_stream", None), "take", partial(clock.timed, "plan")),
        _replace(
            worker, "answer", lambda answer: lambda job, *args: answer(clock.timed("collect", job), *args)
        ),
    ]
    try:
        yield
    finally:
        for restore in replaced:
            restore()


def _replace(owner: Any, name: str, by: Callable[[Any], Any]) -> Callable[[], None]:
    """Put something else in an attribute's place, if it is there; call what is returned to undo it."""
    if not hasattr(owner, name):
        return lambda: None
    own = vars(owner).get(name)
    setattr(owner, name, by(getattr(owner, name)))
    return lambda: delattr(owner, name) if own is None else setattr(owner, name, own)
