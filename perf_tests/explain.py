"""Where an arm's time goes: by stage and by kernel. Apart from the timed blocks, which it would burden."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perf_tests.arms import Arm
from perf_tests.device_thread import on_device_thread
from perf_tests.workloads import Pair
from xenc.profiling.kernels import PassProfile, profile_pass
from xenc.profiling.stages import StageClock, measured_stages


def stage_seconds(arm: Arm, rounds: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """Mean seconds per round of each stage that this revision has a seam for."""
    clock = StageClock(torch.cuda.synchronize if arm.device == "cuda" else None)
    with measured_stages(arm.model.pipeline, clock.timed):
        for pairs in rounds:
            arm.logits(pairs)
    return {stage: seconds / len(rounds) for stage, seconds in clock.seconds.items()}


def one_pass(arm: Arm, pairs: Sequence[Pair]) -> PassProfile:
    """Kernels and peak memory of scoring the pairs once."""
    on_device = on_device_thread(arm.model)
    return profile_pass(lambda: arm.logits(pairs), device=arm.device, on_device=on_device)
