"""Synchronised timing of rounds, and the facts of the machine they ran on."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
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
    """Rounds of one configuration: seconds per round, and what compiled meanwhile.

    `seconds` is empty if pytest-benchmark was told not to measure.
    """

    seconds: tuple[float, ...]
    compiles: CompileReport
    peak_bytes: int | None


def time_rounds(benchmark: Any, run: Callable[[Input], Any], rounds: Sequence[Input]) -> Timing:
    """Time `run` once on each input, after one untimed run on the first.

    Args:
        benchmark: pytest-benchmark's fixture; its timer should be `synchronised_seconds`.
        run: what is timed. Compilation belongs before this call.
        rounds: one input per round.
    """
    run(rounds[0])
    inputs = iter(rounds)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with watch_compiles() as watch:
        benchmark.pedantic(run, setup=lambda: ((next(inputs),), {}), rounds=len(rounds), iterations=1)
    peak_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    stats = benchmark.stats
    seconds = tuple(stats.stats.data) if stats is not None else ()
    return Timing(seconds=seconds, compiles=watch.report, peak_bytes=peak_bytes)


def relative_spread(values: Sequence[float]) -> float:
    """Standard deviation / median, as a fraction; 0 for fewer than two values."""
    return statistics.stdev(values) / statistics.median(values) if len(values) > 1 else 0.0


def device_name(device: str) -> str:
    """What a baseline belongs to: the GPU's name, or the processor's and how many threads torch uses."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """The versions that can change a timing."""
    found = {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}
    found["python"] = platform.python_version()
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.processor() or platform.machine()} ({capability})"
