"""Where an arm's time goes, by stage and by kernel; apart from the timed blocks, which it would slow."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perf_tests.arms import Arm
from perf_tests.device_thread import on_device_thread
from perf_tests.workloads import Pair
from xenc.profiling import stages
from xenc.profiling.kernels import profile_pass
from xenc.profiling.profile import PassProfile


def stage_seconds(arm: Arm, rounds: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """Mean seconds per round of each stage; none for a revision whose pipeline has no spans yet."""
    pipeline = arm.model.pipeline
    if not hasattr(pipeline, "span"):
        return {}
    synchronize = torch.cuda.synchronize if arm.device == "cuda" else lambda: None
    with stages.recorded_stages(pipeline, synchronize) as spans:
        for pairs in rounds:
            arm.logits(pairs)
    return stages.stage_seconds(spans, passes=len(rounds))


def one_pass(arm: Arm, pairs: Sequence[Pair]) -> PassProfile:
    """Kernels and peak memory of scoring the pairs once."""
    device, thread = arm.device, on_device_thread(arm.model)
    return profile_pass(lambda: arm.logits(pairs), device=device, on_device=thread)
