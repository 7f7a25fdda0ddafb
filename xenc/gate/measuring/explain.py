"""What a run consists of: kernels, peak memory, stages, Python functions. Apart from the timed blocks."""

from __future__ import annotations

import cProfile
import math
import pstats
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch._C._profiler import RecordScope, _EventType

from ...profiling.kernel_names import Kernels, added
from ...profiling.kernels import profile_pass, recording
from ..errors import SubjectError
from .subject import Subject, number

EXPLAINED: Final = 8
"""Rounds, at most, in which the stages are timed."""

_OF_PYTORCH: Final = ("Torch-Compiled Region", "CompiledFunction", "PyTorch Profiler", "ProfilerStep", "##")
"""How the names of ranges begin that PyTorch itself marks."""


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What running the counted inputs consists of.

    Attributes:
        kernels: launches and seconds by name.
        peak_bytes: the most that was held at once by kernels.
        functions: calls and own seconds of the package's functions, if no kernel ran.
    """

    kernels: Kernels
    peak_bytes: int
    functions: Kernels

    @property
    def facts(self) -> dict[str, int]:
        """What is exact: kernels and peak memory, or calls of Python functions if no kernel ran."""
        kernels, calls = (sum(count for count, _ in each.values()) for each in (self.kernels, self.functions))
        if kernels:
            return {"kernels": kernels, "peak_bytes": self.peak_bytes}
        return {"python_calls": calls} if calls else {}


def look_inside(subject: Subject, device: str, folder: Path | None) -> Inside:
    """Run the counted inputs under profilers.

    Args:
        subject: warmed up.
        device: torch's device type.
        folder: the package's own, whose functions are told apart; None for no functions.
    """
    seen = profile_pass(
        subject.run_counted, device=device, on_device=subject.on_device, needs_kernels=False
    )  # fmt: skip
    functions = {} if seen.kernels or folder is None else _functions(subject, folder)
    return Inside(kernels=seen.kernels, peak_bytes=seen.peak_bytes, functions=functions)


def stages_of(subject: Subject, device: str) -> Kernels:
    """Operators and seconds of each stage in the first rounds, by name.

    The seconds are asked of the subject, which counts no operators; or read off the ranges that it marks.
    """
    rounds = subject.timed(EXPLAINED)
    if subject.stages is None:
        return _marked(subject, device, rounds)
    found = {stage: number(f"stages: {stage}", each) for stage, each in subject.stages(rounds).items()}
    if not all(map(math.isfinite, found.values())):
        raise SubjectError(f"stages: {found}: give finite seconds.")
    return {stage: (0, seconds) for stage, seconds in found.items()}


def _marked(subject: Subject, device: str, values: Iterable[Any]) -> dict[str, tuple[int, float]]:
    """Of the ranges marked with `record_function`, each without the ranges inside it."""
    with recording(device=device, on_device=subject.on_device) as profiler:
        for value in values:
            subject.run(value)
    found: dict[str, tuple[int, float]] = {}
    _add_own(profiler.profiler.kineto_results.experimental_event_tree(), found)  # type: ignore[union-attr]
    return found


def _add_own(nodes: Iterable[Any], found: dict[str, tuple[int, float]]) -> tuple[int, float]:
    """Add each range's own operators and seconds.

    Returns:
        The operators that the nodes call outside of ranges (those that call no other), and the seconds of the
        outermost ranges.
    """
    outside, whole = 0, 0.0
    for node in nodes:
        calls, inner = _add_own(node.children, found)
        if _is_range(node):
            seconds = node.duration_time_ns / 1e9
            called, spent = found.get(node.name, (0, 0.0))
            found[node.name] = called + calls, spent + seconds - inner
            whole += seconds
        else:
            outside += calls or int(node.tag == _EventType.TorchOp)
            whole += inner
    return outside, whole


def _is_range(node: Any) -> bool:
    if node.tag != _EventType.TorchOp or node.name.startswith(_OF_PYTORCH):
        return False
    return bool(node.extra_fields.scope == RecordScope.USER_SCOPE)


def _functions(subject: Subject, folder: Path) -> dict[str, tuple[int, float]]:
    """Calls and own seconds of the functions of a package, by "package/file:function"."""
    profiler = cProfile.Profile()
    profiler.runcall(subject.run_counted)
    stats: Any = pstats.Stats(profiler)
    return added(
        (f"{Path(file).relative_to(folder.parent)}:{name}", calls, own_s)
        for (file, _, name), (_, calls, own_s, *_) in stats.stats.items()
        if Path(file).is_relative_to(folder)
    )
