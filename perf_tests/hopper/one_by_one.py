"""Requests one after the other, as in a service with few callers."""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from perf_tests.hopper.setting import Setting
from perf_tests.side_by_side.contestant import Contestant
from xenc.compiling.watch import watch_compiles
from xenc.gate.exact import compile_counts


def equal_requests(contestant: Contestant, setting: Setting, count: int) -> dict[str, Any]:
    """`rank` of a query and its documents, so many times: how long, and how steady."""
    model = contestant.model
    contestant.take_over()
    pairs = setting.request.round(0)
    query, documents = pairs[0][0], [document for _, document in pairs]

    def rank() -> float:
        started = time.perf_counter()
        model.rank(query, documents, batch_size=contestant.row.batch_size, show_progress_bar=False)
        return time.perf_counter() - started

    for _ in range(min(20, count)):
        rank()
    tokens = sum(model.last_report.token_counts)
    with watch_compiles() as watch:
        seconds = [rank() for _ in range(count)]
    quantiles = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "execution": contestant.row.name,
        "documents": len(documents),
        "tokens": tokens,
        "requests": len(seconds),
        "p50_s": statistics.median(seconds),
        "p90_s": quantiles[89],
        "p99_s": quantiles[98],
        **compile_counts(watch.report),
    }


def random_requests(contestant: Contestant, setting: Setting, limit_s: float) -> dict[str, Any]:
    """Requests of one document to many: nothing may compile, and time should go with tokens."""
    end = time.monotonic() + limit_s
    model = contestant.model
    contestant.take_over()
    generator = random.Random("sizes")
    pairs = setting.request.round(0)
    tokens, seconds = [], []
    with watch_compiles() as watch:
        while len(seconds) < setting.random_requests and time.monotonic() < end:
            some = generator.choices(pairs, k=generator.randint(1, setting.most_documents))
            started = time.perf_counter()
            contestant.logits(some)
            seconds.append(time.perf_counter() - started)
            tokens.append(sum(model.last_report.token_counts) if model.last_report else 0)
    slope, at_zero = statistics.linear_regression(tokens, seconds)
    return {
        "execution": contestant.row.name,
        "requests": len(seconds),
        "asked_for": setting.random_requests,
        "seconds_per_token": slope,
        "seconds_at_zero": at_zero,
        "correlation": statistics.correlation(tokens, seconds),
        **compile_counts(watch.report),
    }
