"""Where an arm's time goes: by stage and by kernel. Apart from the timed blocks, which it would burden."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from xenc.gate.kernels import PassProfile, profile_pass
from xenc.gate.stages import StageClock

from perf_tests.arms import Arm
from perf_tests.workloads import Pair


def stage_seconds(arm: Arm, rounds: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """Mean seconds per round of each stage that this revision has a seam for."""
    clock = StageClock(torch.cuda.synchronize if arm.device == "cuda" else None)
    with _on_the_clock(arm.model.pipeline, clock):
        for pairs in rounds:
            arm.logits(pairs)
    return {stage: seconds / len(rounds) for stage, seconds in clock.seconds.items()}


def one_pass(arm: Arm, pairs: Sequence[Pair]) -> PassProfile:
    """Kernels and peak memory of scoring the pairs once."""
    worker = getattr(arm.model.pipeline, "_worker", None)

    def on_device(job: Callable[[], object]) -> object:
        return job() if worker is None else worker.on_device(job).result()

    return profile_pass(lambda: arm.logits(pairs), device=arm.device, on_device=on_device)


@contextmanager
def _on_the_clock(pipeline: Any, clock: StageClock) -> Iterator[None]:
    """Time the stages' callables where they hang on the pipeline; an older revision may lack some."""
    seams = {
        "tokenize": (pipeline, "_tokenize"),
        "plan": (getattr(pipeline, "_stream", None), "take"),
        "collate": (pipeline.collator, "collate"),
        "forward": (pipeline, "forward"),
    }
    worker = getattr(pipeline, "_worker", None)
    replaced = []
    for stage, (owner, name) in seams.items():
        with suppress(AttributeError):
            timed = clock.timed(stage, getattr(owner, name))
            replaced.append((owner, name, vars(owner).get(name)))
            setattr(owner, name, timed)
    if hasattr(worker, "answer"):
        answer = worker.answer
        replaced.append((worker, "answer", None))
        worker.answer = lambda job, *args: answer(clock.timed("collect", job), *args)
    try:
        yield
    finally:
        for owner, name, own in replaced:
            delattr(owner, name) if own is None else setattr(owner, name, own)
