"""One revision on one configuration: what runs a block, and what is exact about it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np

from perf_tests.against import PAIRED, PairedConfiguration
from perf_tests.extra_work import ExtraWork
from perf_tests.peers.peer import predicted
from perf_tests.ready_models import ReadyModel
from perf_tests.scorers import DTYPES, output_error
from perf_tests.workloads import Pair
from xenc.compiling.watch import CompileReport, watch_compiles
from xenc.gate.exact import compile_counts


class Arm:
    """A configuration in one revision of xenc.

    Args:
        ready: the revision's model under the configuration's execution.
        configuration: what it runs.
        other: the folder of the other revision, whose functions this one is not to blame for.

    Attributes:
        counts: what compiled, broke or fell to eager in timed blocks, or broke or fell in the warm-up.
        findings: the same in words.
    """

    def __init__(self, ready: ReadyModel, configuration: PairedConfiguration, *, other: str) -> None:
        self.ready, self.configuration, self.device = ready, configuration, ready.device
        self._other = other
        self.model = ready.model
        self.counts: dict[str, int] = {}
        self.findings = ""
        self._note(ready.warmup, ("graph_breaks", "cudagraph_skips", "eager_fallbacks"))

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits."""
        self.ready.begin()
        return predicted(self.model, pairs, self.configuration.workload.batch_size)

    def run(self, pairs: Sequence[Pair]) -> float:
        """Score the pairs; the seconds that forward passes took."""
        self.logits(pairs)
        seconds = self.ready.device_seconds()
        if not seconds > 0:
            raise RuntimeError(f"{self.configuration.name}: predict never reached pipeline.forward")
        return seconds

    @contextmanager
    def watched(self, names: Sequence[str] | None = None) -> Iterator[None]:
        """What compiles meanwhile is this arm's: all of it, or the counts of these names."""
        with watch_compiles() as watch:
            yield
        self._note(watch.report, names)

    def facts(self) -> dict[str, Any]:
        """What timed blocks must not show, and the graphs there are; see `xenc.gate.exact`.

        Raises:
            RuntimeError: a compiled execution without a graph: it would be timed as something it is not.
        """
        compiled = self.model.pipeline.compiled
        graphs = compiled.graphs if compiled is not None else 0
        if self.model.execution.compile_mode is not None and graphs == 0:
            raise RuntimeError(f"{self.configuration.name} is compiled and has no graph: is Dynamo disabled?")
        return {**self.counts, "graphs": graphs}

    def facts_of(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Padding, and the error against the oracle."""
        max_length = self.configuration.workload.max_length
        model = PAIRED[self.device].checkpoint()
        error = output_error(
            self.logits(pairs), pairs, model=model, device=self.device, max_length=max_length,
            dtype=DTYPES[self.device],
        )  # fmt: skip
        report = self.model.last_report
        return {
            "padded_share": None if report is None else report.waste,
            "output_error": error.error,
            "output_tolerance": error.tolerance,
        }

    def extra_work(self, share: float, pairs: Sequence[Pair]) -> ExtraWork:
        """A share of what scoring the pairs takes the device now."""
        block_s = statistics.median(self.run(pairs) for _ in range(5))
        return ExtraWork(self.device, DTYPES[self.device], share=share, block_s=block_s)

    def slowed(self, work: ExtraWork) -> Callable[[Sequence[Pair]], float]:
        """`run` with that much more device work, and nothing else changed."""

        def run(pairs: Sequence[Pair]) -> float:
            self.ready.extra = work
            try:
                return self.run(pairs)
            finally:
                self.ready.extra = None

        return run

    def _note(self, report: CompileReport, names: Sequence[str] | None = None) -> None:
        fallen = [text for text in report.eager_fallbacks if self._is_mine(text)]
        counts = compile_counts(replace(report, eager_fallbacks=tuple(fallen)))
        counts |= {"recompiles": report.graphs, "cudagraph_recordings": report.cudagraph_recordings}
        findings = str(counts.pop("compile_findings"))
        for name in names or counts:
            self.counts[name] = max(self.counts.get(name, 0), counts[name])
            self.findings = findings if counts[name] else self.findings

    def _is_mine(self, fallen: str) -> bool:
        """A function that stays exhausted is seen by all who run later; it belongs to whom it happened to."""
        if self._other in fallen:
            return False
        return _STAYS not in fallen or _FIRST_SEEN.setdefault(fallen, self._other) == self._other


_STAYS: Final = "has used up its recompile limit"
"""What a watch says of a function for ever after, not only when it happens."""

_FIRST_SEEN: Final[dict[str, str]] = {}
"""By function: the folder that the arm is not of to which it happened."""
