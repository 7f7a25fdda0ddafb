"""One revision on one configuration: what runs a block, and what is exact about it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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

    Attributes:
        counts: compilations, graph breaks and eager fallbacks in timed blocks; of the last two also those in
            the warm-up.
        findings: the same in words.
    """

    def __init__(self, ready: ReadyModel, configuration: PairedConfiguration) -> None:
        self.ready, self.configuration, self.device = ready, configuration, ready.device
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
        """Count what compiles during the block as this arm's, all of it or only the counts of these names."""
        with watch_compiles() as watch:
            yield
        self._note(watch.report, names)

    def facts(self) -> dict[str, Any]:
        """The counts and the number of graphs; see `xenc.gate.exact`.

        Raises:
            RuntimeError: a compiled execution has no graph.
        """
        compiled = self.model.pipeline.compiled
        graphs = compiled.graphs if compiled is not None else 0
        if self.model.execution.compile_mode is not None and graphs == 0:
            raise RuntimeError(f"{self.configuration.name} is compiled and has no graph: is Dynamo disabled?")
        return {**self.counts, "graphs": graphs}

    def facts_of(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Padding, and the error against the oracle."""
        error, tolerance = output_error(
            self.logits(pairs), pairs, model=PAIRED[self.device].checkpoint(), device=self.device,
            max_length=self.configuration.workload.max_length, dtype=DTYPES[self.device],
        )  # fmt: skip
        waste = None if self.model.last_report is None else self.model.last_report.waste
        return {"padded_share": waste, "output_error": error, "output_tolerance": tolerance}

    def extra_work(self, share: float, pairs: Sequence[Pair]) -> ExtraWork:
        """Work that takes a share of the device's present time for the pairs."""
        block_s = statistics.median(self.run(pairs) for _ in range(5))
        return ExtraWork(self.device, DTYPES[self.device], share=share, block_s=block_s)

    def slowed(self, work: ExtraWork) -> Callable[[Sequence[Pair]], float]:
        """`run` with more device work."""

        def run(pairs: Sequence[Pair]) -> float:
            self.ready.extra = work
            try:
                return self.run(pairs)
            finally:
                self.ready.extra = None

        return run

    def _note(self, report: CompileReport, names: Sequence[str] | None = None) -> None:
        counts = compile_counts(report)
        counts |= {"recompiles": report.graphs, "cudagraph_recordings": report.cudagraph_recordings}
        findings = str(counts.pop("compile_findings"))
        for name in names or counts:
            self.counts[name] = max(self.counts.get(name, 0), counts[name])
            self.findings = findings if counts[name] else self.findings
