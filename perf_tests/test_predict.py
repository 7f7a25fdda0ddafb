"""The whole road, from texts to scores: every configuration on every workload."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest

from perf_tests.configurations import ROUNDS, Configuration, configurations, missing_for
from perf_tests.rates import encoder, identity, rates
from perf_tests.scored import exact
from perf_tests.scorers import DTYPES, Scorer, Scorers, checkpoint, output_error
from perf_tests.workloads import Pair
from xenc import PRESETS, ExecutionError
from xenc.gate.exact import compile_counts
from xenc.gate.measuring.rounds import Timing, synchronised_seconds, time_rounds
from xenc.profiling.flops import gemm_seconds_per_token


@pytest.mark.benchmark(timer=synchronised_seconds)
@pytest.mark.parametrize("configuration", configurations())
def test_predict(
    benchmark: Any, configuration: Configuration, scorers: Scorers,
    profile: Callable[[Scorer, list[Pair]], None],
) -> None:  # fmt: skip
    quantize = PRESETS[configuration.name].quantize
    reason = missing_for(PRESETS[configuration.name])
    if reason is None:
        try:
            scorer = scorers.ready(configuration)
        except ExecutionError as error:
            if quantize is None:
                raise
            reason = str(error)  # not every device has eight-bit products
    device = configuration.device
    model, workload = checkpoint(device), configuration.workload
    benchmark.extra_info.update(identity(configuration.name, workload, model, DTYPES[device]))
    if reason is not None:
        benchmark.extra_info.update(not_measured=reason)
        return
    rounds = [workload.round(number) for number in range(ROUNDS)]
    reference = scorers.reference(configuration)
    reference.logits(rounds[0])
    error, tolerance = output_error(
        scorer.logits(rounds[0]), rounds[0], model=model, device=device, max_length=workload.max_length,
        dtype=DTYPES[device], quantize=quantize,
    )  # fmt: skip
    with scorers.broken(scorer):
        timing = time_rounds(benchmark, scorer.logits, rounds, reference=reference.logits)
    benchmark.extra_info.update(
        graphs=scorer.graphs,
        warmup_s=scorer.warmup_s,
        output_error=error,
        output_tolerance=tolerance,
        **compile_counts(timing.compiles),
        **throughput(configuration, scorer, timing, rounds),
    )
    benchmark.extra_info["exact"] = exact(benchmark.extra_info)
    profile(scorer, rounds[0])


def throughput(
    configuration: Configuration, scorer: Scorer, timing: Timing, rounds: list[list[Pair]]
) -> dict[str, Any]:
    """Rates over the timed rounds, and how near they come to the device's limit."""
    device, seconds = configuration.device, timing.seconds
    info = rates(configuration.workload, rounds, seconds, device, DTYPES[device])
    if seconds:  # what the matrix products would take alone, measured just now
        per_token = gemm_seconds_per_token(encoder(device, DTYPES[device]))
        info["gemm_share"] = per_token * info["tokens_per_s"]
    if scorer.wastes:
        info["waste"] = statistics.median(scorer.wastes[-len(rounds) :])
    return {**info, "reference_seconds": timing.reference_seconds, "peak_bytes": timing.peak_bytes}
