"""One revision's model on one configuration, warmed up: what runs a block and what is exact about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import torch

from perf_tests.against import PairedConfiguration
from perf_tests.extra_work import ExtraWork
from perf_tests.scorers import DTYPES, checkpoint, output_error
from perf_tests.workloads import Pair
from xenc.gate.exact import compile_counts
from xenc.watch import watch_compiles


class Arm:
    """A configuration in one revision of xenc.

    It touches of that revision only what users do, and `pipeline.forward`, to time the device.

    Args:
        package: the revision, as an imported package.
        configuration: what it runs.
        device: torch's device type.
    """

    def __init__(self, package: ModuleType, configuration: PairedConfiguration, device: str) -> None:
        self.configuration, self.device = configuration, device
        workload = configuration.workload
        self.counts: dict[str, int] = {}
        self.findings = ""
        execution = replace(package.PRESETS[configuration.preset], **configuration.changes)
        self.model = package.CrossEncoder(
            str(checkpoint(device)),
            device=device,
            max_length=workload.max_length,
            model_kwargs={"dtype": DTYPES[device]},
            execution=execution,
        )
        with self.watched(timed=False):
            self.model.warmup(workload.batch_size)
        self._device_s = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._untimed = self.model.pipeline.forward
        self.model.pipeline.forward = self._timed(self._untimed)

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits."""
        return self.model.predict(
            pairs,
            batch_size=self.configuration.workload.batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )

    def run(self, pairs: Sequence[Pair]) -> float:
        """Score the pairs; the seconds that forward passes took."""
        self._device_s, self._events = 0.0, []
        self.logits(pairs)
        if self._events:
            torch.cuda.synchronize()
            return sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        return self._device_s

    @contextmanager
    def watched(self, *, timed: bool = True) -> Iterator[None]:
        """Count what compiles meanwhile as this arm's; in warm-up only what falls to eager is news."""
        with watch_compiles() as watch:
            yield
        report = watch.report
        fallen = set(report.eager_fallbacks) - _KNOWN_FALLBACKS
        _KNOWN_FALLBACKS.update(fallen)
        counts = {**compile_counts(report), "eager_fallbacks": len(fallen)}
        findings = str(counts.pop("compile_findings"))
        for name in counts if timed else ("eager_fallbacks", "graph_breaks", "cudagraph_skips"):
            self.counts[name] = self.counts.get(name, 0) + counts[name]
        if findings and (timed or fallen):
            self.findings = findings

    def facts(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """What needs no statistics; see `xenc.gate.exact`."""
        error = output_error(
            self.logits(pairs), pairs, device=self.device, max_length=self.configuration.workload.max_length
        )
        compiled = self.model.pipeline.compiled
        report = self.model.last_report
        return {
            **self.counts,
            "graphs": compiled.graphs if compiled is not None else 0,
            "padded_share": None if report is None else report.waste,
            "output_error": error.error,
            "output_tolerance": error.tolerance,
        }

    def slowed(self, share: float, pairs: Sequence[Pair]) -> Callable[[Sequence[Pair]], float]:
        """`run` with a share more device work in each block, and nothing else changed."""
        block_s = sorted(self.run(pairs) for _ in range(5))[2]
        work = ExtraWork(self.device, DTYPES[self.device], share=share, block_s=block_s)
        pipeline = self.model.pipeline
        sound, slow = pipeline.forward, self._timed(work.around(self._untimed))

        def run(pairs: Sequence[Pair]) -> float:
            work.begin_block()
            pipeline.forward = slow
            try:
                return self.run(pairs)
            finally:
                pipeline.forward = sound

        return run

    def _timed(self, forward: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
        def on_cpu(batch: Any) -> torch.Tensor:
            started = time.perf_counter()
            logits = forward(batch)
            self._device_s += time.perf_counter() - started
            return logits

        def on_cuda(batch: Any) -> torch.Tensor:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            logits = forward(batch)
            end.record()
            self._events.append((begin, end))
            return logits

        return on_cuda if self.device == "cuda" else on_cpu


_KNOWN_FALLBACKS: set[str] = set()
"""Functions that had fallen to eager before: whoever runs next is not to blame."""
