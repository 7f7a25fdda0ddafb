"""One revision's model under one execution: warmed up, its forward passes on the clock.

It touches of that revision only what users do, and `pipeline.forward`, to time the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from perf_tests.against import PairedConfiguration
from perf_tests.extra_work import ExtraWork
from perf_tests.scorers import DTYPES, checkpoint
from xenc.watch import CompileReport, watch_compiles

Forward = Callable[[Any], torch.Tensor]


class ReadyModel:
    """A model that is ready to be timed.

    Args:
        package: the revision, as an imported package.
        configuration: its execution and max_length; not its texts.
        device: torch's device type.

    Attributes:
        model: the revision's CrossEncoder.
        warmup: what compiled in the warm-up.
        extra: device work that each request carries on purpose.
    """

    def __init__(self, package: ModuleType, configuration: PairedConfiguration, device: str) -> None:
        self.device = device
        self.extra: ExtraWork | None = None
        self._device_s = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.model = package.CrossEncoder(
            str(checkpoint(device)),
            device=device,
            max_length=configuration.workload.max_length,
            model_kwargs={"dtype": DTYPES[device]},
            execution=replace(package.PRESETS[configuration.preset], **configuration.changes),
        )
        with watch_compiles() as watch:
            self.model.warmup(configuration.workload.batch_size)
        self.warmup: CompileReport = watch.report
        self.model.pipeline.forward = self._timed(self._loaded(self.model.pipeline.forward))

    def begin(self) -> None:
        """The clock stands at zero; the next forward pass carries the extra work, if there is any."""
        self._device_s, self._events = 0.0, []
        if self.extra is not None:
            self.extra.begin_block()

    def device_seconds(self) -> float:
        """What forward passes have taken since `begin`: CPU seconds of their thread, or the GPU's seconds.

        Waits for the GPU.
        """
        if self._events:
            torch.cuda.synchronize()
            return sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        return self._device_s

    def _loaded(self, forward: Forward) -> Forward:
        def loaded(batch: Any) -> torch.Tensor:
            if self.extra is not None:
                self.extra.run_if_due()
            return forward(batch)

        return loaded

    def _timed(self, forward: Forward) -> Forward:
        def on_cpu(batch: Any) -> torch.Tensor:
            started = time.thread_time()  # what the scheduler takes away is not the forward pass's
            logits = forward(batch)
            self._device_s += time.thread_time() - started
            return logits

        def on_cuda(batch: Any) -> torch.Tensor:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            logits = forward(batch)
            end.record()
            self._events.append((begin, end))
            return logits

        return on_cuda if self.device == "cuda" else on_cpu
