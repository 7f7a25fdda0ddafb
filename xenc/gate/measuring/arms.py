"""One revision of a subject: what runs a block, and what is exact about it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from ...compiling.watch import CompileReport, watch_compiles
from ..exact import compile_counts
from .extra_work import ExtraWork
from .subject import Subject

WARMUP_FACTS: Final = ("graph_breaks", "cudagraph_skips", "eager_fallbacks")
"""What counts in the warm-up already, beside graphs; anything that compiles there is no recompile."""


class Arm:
    """A subject in one revision.

    Args:
        subject: what a test measures, made from that revision.
        device: torch's device type.
        warmup: what compiled while the subject was made and warmed up.

    Attributes:
        counts: compilations, graph breaks and eager fallbacks in timed blocks; of graphs those of the
            warm-up, of WARMUP_FACTS both.
        findings: the same in words.
        extra: work that each run does besides, on purpose.
    """

    def __init__(self, subject: Subject, device: str, warmup: CompileReport) -> None:
        self.subject, self.device = subject, device
        self.counts: dict[str, int] = {"graphs": warmup.graphs}
        self.findings = ""
        self.extra: ExtraWork | None = None
        self._note(warmup, WARMUP_FACTS)
        self._checked = False

    def run(self, value: Any) -> float:
        """Run once; the seconds that the device worked.

        Raises:
            RuntimeError: the device did not work.
        """
        seconds = self._timed(value) if self.subject.device_seconds is None else self._asked(value)
        if not seconds > 0:
            raise RuntimeError("the device did no work in a run: does it return before the work has begun?")
        return seconds

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count what compiles during the block as this arm's."""
        with watch_compiles() as watch:
            yield
        self._note(watch.report)

    def work(self, share: float, value: Any) -> ExtraWork:
        """Work that takes a share of the device's present time for an input."""
        block_s = statistics.median(self.run(value) for _ in range(5))
        return ExtraWork(self.device, share=share, block_s=block_s)

    def slowed(self, work: ExtraWork) -> Callable[[Any], float]:
        """`run` with more work."""

        def run(value: Any) -> float:
            self.extra, before = work, self.extra
            try:
                return self.run(value)
            finally:
                self.extra = before

        return run

    def _asked(self, value: Any) -> float:
        assert self.subject.device_seconds is not None
        self._run(value)
        return self.subject.device_seconds()

    def _timed(self, value: Any) -> float:
        """The GPU's seconds from the first to the last piece of work; CPU seconds of the whole process."""
        if self.device != "cuda":
            started = time.process_time()
            self._run(value)
            return time.process_time() - started
        event: Any = torch.cuda.Event
        begin, end = (event(enable_timing=True) for _ in range(2))
        begin.record()
        self._run(value)
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    def _run(self, value: Any) -> None:
        if self.extra is not None:
            (self.subject.load or (lambda job: job()))(self.extra)
        output = self.subject.run(value)
        if not self._checked:
            self.subject.check(output)
            self._checked = True

    def _note(self, report: CompileReport, names: Sequence[str] | None = None) -> None:
        counts = compile_counts(report)
        counts |= {"recompiles": report.graphs, "cudagraph_recordings": report.cudagraph_recordings}
        findings = str(counts.pop("compile_findings"))
        for name in names or counts:
            self.counts[name] = max(self.counts.get(name, 0), counts[name])
            self.findings = findings if counts[name] else self.findings
