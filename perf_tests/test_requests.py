"""Requests one after the other: how steady, how proportional to tokens, and the overhead beside the device.

If something compiles a test fails here; times are recorded and shown.
"""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest

from perf_tests import workloads
from perf_tests.configurations import DEVICES, Configuration
from perf_tests.scorers import Scorer, Scorers, laid_out
from perf_tests.workloads import Pair
from xenc.gate.exact import compile_counts
from xenc.gate.measuring.rounds import synchronised_seconds, time_rounds

MARGIN = 0.4
"""Requests last milliseconds: on a shared machine only a changed algorithm shows."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.benchmark(timer=synchronised_seconds),
    pytest.mark.parametrize("device", DEVICES),
]


def packed(scorers: Scorers, device: str) -> Scorer:
    workload = workloads.short_query(batch_size=64)
    return scorers.ready(Configuration(name="packed", device=device, workload=workload))


def record(benchmark: Any, scorer: Scorer, rounds: list[list[Pair]], **info: Any) -> tuple[float, ...]:
    """Time each request; note what compiled, and the median and the 99th percentile."""
    scorer.logits(rounds[0])
    timing = time_rounds(benchmark, scorer.logits, rounds)
    if len(timing.seconds) > 1:
        p99 = statistics.quantiles(timing.seconds, n=100, method="inclusive")[98]
        info |= {"p99_s": p99, "p99_over_p50": p99 / statistics.median(timing.seconds)}
    benchmark.extra_info.update(margin=MARGIN, **compile_counts(timing.compiles), **info)
    return timing.seconds


def test_one_request_again_and_again(benchmark: Any, scorers: Scorers, device: str) -> None:
    """A query and 100 documents: p99 / p50 says how steady."""
    workload = workloads.short_query(batch_size=64)
    repeats = 50 if device == "cpu" else 2000
    rounds, fingerprint = [workload.round(0)] * repeats, workload.fingerprint
    record(benchmark, packed(scorers, device), rounds, workload_fingerprint=fingerprint)


def test_requests_of_random_sizes(benchmark: Any, scorers: Scorers, device: str) -> None:
    """500 requests of 1 to 16 documents (64 on a GPU): nothing compiles, and time goes with tokens."""
    generator = random.Random("random sizes")
    most = 16 if device == "cpu" else 64
    pairs = workloads.short_query(batch_size=64).round(0)
    rounds = [generator.choices(pairs, k=generator.randint(1, most)) for _ in range(500)]
    scorer = packed(scorers, device)
    tokens = [sum(scorer.model.pipeline.tokenize(round_).counts) for round_ in rounds]
    seconds = record(benchmark, scorer, rounds, round_sizes=tokens)
    if seconds:
        slope, at_zero = statistics.linear_regression(tokens, seconds)
        benchmark.extra_info.update(
            seconds_per_token=slope, seconds_at_zero=at_zero,
            correlation=statistics.correlation(tokens, seconds),
        )  # fmt: skip


def test_texts_are_read_while_the_device_runs(benchmark: Any, scorers: Scorers, device: str) -> None:
    """`predict` on fresh texts, beside the device's own time on the same batches, made in advance."""
    workload = workloads.seed(pairs=32 if device == "cpu" else 1024, batch_size=64)
    scorer = packed(scorers, device)
    rounds = [workload.round(number) for number in range(5)]
    scorer.logits(rounds[0])
    prepared = {id(pairs): laid_out(scorer.model, pairs, scorer.batch_size)[1] for pairs in rounds}
    run = scorer.model.pipeline.run
    timing = time_rounds(benchmark, scorer.logits, rounds, reference=lambda pairs: run(prepared[id(pairs)]))
    both = zip(timing.seconds, timing.reference_seconds, strict=True)
    overhead = [whole / device_s for whole, device_s in both]
    benchmark.extra_info.update(
        workload_fingerprint=workload.fingerprint, margin=MARGIN, **compile_counts(timing.compiles)
    )
    if overhead:
        benchmark.extra_info.update(predict_over_device_time=statistics.median(overhead))
