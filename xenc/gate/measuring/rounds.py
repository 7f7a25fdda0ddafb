"""Times rounds; waits for the device before and after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ...compiling.watch import CompileReport, watch_compiles

Input = TypeVar("Input")


def synchronised_seconds() -> float:
    """Wall-clock seconds, read after the device has finished its work: a timer for pytest-benchmark.

    The default timer would stop when the work is launched.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Rounds of one configuration.

    Attributes:
        seconds: of each round; empty if pytest-benchmark is disabled.
        reference_seconds: of the reference on the same input, just before each round.
        compiles: what was compiled during the rounds, in either.
        peak_bytes: peak memory of the device; None without CUDA.
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
    """Time `run` once on each input. The caller warms it up first.

    Args:
        benchmark: pytest-benchmark's fixture; its timer should be `synchronised_seconds`.
        run: what is timed.
        rounds: one input per round.
        reference: what to compare with. It runs on the same input just before each round. A slower machine
            slows both, so their ratio drifts less than the seconds do.
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
