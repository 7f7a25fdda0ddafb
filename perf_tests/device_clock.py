"""A clock on a model's forward passes: the device's seconds, whatever the host does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Forward = Callable[[Any], torch.Tensor]


class DeviceClock:
    """Adds up forward passes on a torch device type: the GPU's seconds, or CPU seconds of their thread."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.begin()

    def begin(self) -> None:
        """Set the clock to zero."""
        self._cpu_s = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def seconds(self) -> float:
        """Seconds of forward passes since `begin`. Waits for the GPU."""
        if self._events:
            torch.cuda.synchronize()
            return sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        return self._cpu_s

    def timed(self, forward: Forward) -> Forward:
        """The same forward pass, on the clock."""

        def on_cpu(batch: Any) -> torch.Tensor:
            started = time.thread_time()  # time in which other threads run does not count
            logits = forward(batch)
            self._cpu_s += time.thread_time() - started
            return logits

        def on_cuda(batch: Any) -> torch.Tensor:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            logits = forward(batch)
            end.record()
            self._events.append((begin, end))
            return logits

        return on_cuda if self._device == "cuda" else on_cpu
