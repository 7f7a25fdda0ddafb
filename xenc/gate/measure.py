"""Synchronised timing of rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch

from ..watch import CompileReport, watch_compiles

Input = TypeVar("Input")

FLAGGED_SPREAD: Final = 0.05
"""A spread above this is pointed out wherever the number is printed."""


def synchronised_seconds() -> float:
    """Seconds on the wall clock once the device has done all it was given: a timer for pytest-benchmark.

    The default timer would stop when the work is launched, not when it is done.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Rounds of one configuration.

    Attributes:
        seconds: per round; empty if pytest-benchmark was told not to measure.
        reference_seconds: what the reference took on the same input, just before each round.
        compiles: what compiled meanwhile, in either.
        peak_bytes: the most device memory held, on CUDA.
    """

    seconds: tuple[float, ...]
    reference_seconds: tuple[float, ...]
    compiles: CompileReport
    peak_bytes: int | None


def time_rounds(
    benchmark: Any,
    run: Callable[[Input], Any],
    rounds: Sequence[Input],
    reference: Callable[[Input], Any] | None = None,
) -> Timing:
    """Time `run` once on each input. Warm it up first.

    Args:
        benchmark: pytest-benchmark's fixture; its timer should be `synchronised_seconds`.
        run: what is timed.
        rounds: one input per round.
        reference: what to compare with. It runs on the same input right before each round, so that a
            machine that slows down slows both: their ratio means something where seconds do not.
    """
    inputs = iter(rounds)
    reference_seconds: list[float] = []

    def next_round() -> tuple[tuple[Input], dict[str, Any]]:
        pairs = next(inputs)
        if reference is not None:
            started = synchronised_seconds()
            reference(pairs)
            reference_seconds.append(synchronised_seconds() - started)
        return (pairs,), {}

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with watch_compiles() as watch:
        benchmark.pedantic(run, setup=next_round, rounds=len(rounds), iterations=1)
    stats = benchmark.stats
    return Timing(
        seconds=tuple(stats.stats.data) if stats is not None else (),
        reference_seconds=tuple(reference_seconds),
        compiles=watch.report,
        peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    )


def relative_spread(values: Sequence[float]) -> float:
    """Standard deviation / median, as a fraction; 0 for fewer than two values."""
    return statistics.stdev(values) / statistics.median(values) if len(values) > 1 else 0.0
