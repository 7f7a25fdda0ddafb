"""The whole road, from texts to scores: every configuration on every workload."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from perf_tests.configurations import PEERS, REFERENCE, ROUNDS, Configuration, configurations
from perf_tests.peers import Absent
from perf_tests.scorers import DTYPES, Scorer, Scorers, checkpoint, output_error
from perf_tests.workloads import Pair
from xenc import PRESETS, ExecutionError
from xenc.extras import missing_for
from xenc.flops import device_peak, gemm_seconds_per_token, workload_flops
from xenc.gate.exact import compile_counts
from xenc.gate.measure import Timing, synchronised_seconds, time_rounds
from xenc.tokens import tokenize


@pytest.mark.benchmark(timer=synchronised_seconds)
@pytest.mark.parametrize("configuration", configurations())
def test_predict(
    benchmark: Any,
    configuration: Configuration,
    scorers: Scorers,
    profile: Callable[[Scorer, list[Pair]], None],
) -> None:
    reason, quantize = why_not(configuration), quantization(configuration)
    if reason is None:
        try:
            scorer = scorers.ready(configuration)
        except Absent as error:
            reason = str(error)
        except ExecutionError as error:
            if quantize is None:
                raise
            reason = str(error)  # not every device has eight-bit products
    if reason is not None:
        benchmark.extra_info.update(identity(configuration), not_measured=reason)
        return
    rounds = [configuration.workload.round(number) for number in range(ROUNDS)]
    reference = scorers.reference(configuration)
    reference.logits(rounds[0])
    error = output_error(
        scorer.logits(rounds[0]),
        rounds[0],
        model=checkpoint(configuration.device),
        device=configuration.device,
        max_length=configuration.workload.max_length,
        dtype=DTYPES[configuration.device],
        quantize=quantize,
    )
    with scorers.broken(scorer):
        timing = time_rounds(benchmark, scorer.logits, rounds, reference=reference.logits)
    benchmark.extra_info.update(
        identity(configuration),
        graphs=scorer.graphs,
        warmup_s=scorer.warmup_s,
        output_error=error.error,
        output_tolerance=error.tolerance,
        **compile_counts(timing.compiles),
        **throughput(configuration, scorer, timing, rounds),
    )
    profile(scorer, rounds[0])


def why_not(configuration: Configuration) -> str | None:
    """Why a preset cannot be measured, for want of packages; None if it can. A peer says so itself."""
    return None if configuration.name in PEERS else missing_for(PRESETS[configuration.name])


def quantization(configuration: Configuration) -> str | None:
    """What a configuration quantises to: its error is tolerated by that."""
    return None if configuration.name in PEERS else PRESETS[configuration.name].quantize


def identity(configuration: Configuration) -> dict[str, Any]:
    """What is measured, by the names that reports and baselines use."""
    return {
        "configuration": configuration.name,
        "reference": REFERENCE,
        "workload": configuration.workload.name,
        "workload_fingerprint": configuration.workload.fingerprint,
        "model": checkpoint(configuration.device).name,
        "dtype": str(DTYPES[configuration.device]).removeprefix("torch."),
    }


def throughput(
    configuration: Configuration, scorer: Scorer, timing: Timing, rounds: list[list[Pair]]
) -> dict[str, Any]:
    """Rates over the timed rounds, and how near they come to the device's limit."""
    counts = [token_counts(configuration, pairs) for pairs in rounds]
    info: dict[str, Any] = {
        "pairs_per_round": configuration.workload.pairs_per_round,
        "round_tokens": [sum(round_counts) for round_counts in counts],
        "reference_seconds": timing.reference_seconds,
        "peak_bytes": timing.peak_bytes,
    }
    if scorer.wastes:
        info["waste"] = statistics.median(scorer.wastes[-len(rounds) :])
    if timing.seconds:
        info["gemm_share"] = gemm_share(configuration.device, [sum(c) for c in counts], timing.seconds)
        peak = device_peak(configuration.device, DTYPES[configuration.device])
        flops = [workload_flops(encoder(configuration.device), round_counts) for round_counts in counts]
        info |= {
            "pairs_per_s": statistics.median(len(c) / s for c, s in zip(counts, timing.seconds, strict=True)),
            "tokens_per_s": statistics.median(
                sum(c) / s for c, s in zip(counts, timing.seconds, strict=True)
            ),
            "mfu": statistics.median(
                work / (second * peak.flops_per_s) for work, second in zip(flops, timing.seconds, strict=True)
            ),
            "peak_source": peak.source,
        }
    return info


@cache
def encoder(device: str) -> PreTrainedModel:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint(device), dtype=DTYPES[device])
    return model.to(device)


def gemm_share(device: str, round_tokens: list[int], seconds: tuple[float, ...]) -> float:
    """The share of the time that the encoder's matrix products would take alone, measured just now."""
    per_token = gemm_seconds_per_token(encoder(device))
    return statistics.median(
        tokens * per_token / second for tokens, second in zip(round_tokens, seconds, strict=True)
    )


def token_counts(configuration: Configuration, pairs: list[Pair]) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(configuration.device))
    return tokenize(tokenizer, pairs, max_length=configuration.workload.max_length).counts
