"""One revision's model under one execution: warmed up, its forward passes on the clock.

Of that revision it uses only the public interface and `pipeline.forward`, to time the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from perf_tests.against import CHECKPOINTS, PairedConfiguration
from perf_tests.device_clock import DeviceClock, Forward
from perf_tests.device_thread import on_device_thread
from perf_tests.scorers import DTYPES, check_runs_as
from xenc.profiling.kernels import name_compiled_kernels


class ReadyModel:
    """A model that is ready to be timed.

    Args:
        package: the revision, as an imported package.
        configuration: its execution and max_length; not its texts.
        device: torch's device type.
        weights: a model of the same checkpoint, to share tensors with if they are the same.
        named_kernels: let a profiler see the CPU's compiled kernels, at a small cost.

    Attributes:
        name: of the configuration.
        model: the revision's CrossEncoder.
        shares_weights: whether it shares tensors.
    """

    def __init__(
        self,
        package: ModuleType, configuration: PairedConfiguration, device: str, *,
        weights: torch.nn.Module | None = None, named_kernels: bool = False,
    ) -> None:  # fmt: skip
        self.device, self.name = device, configuration.name
        self._job: Callable[[], object] | None = None
        self._clock = DeviceClock(device)
        execution = replace(package.PRESETS[configuration.preset], **configuration.changes)
        self.model = package.CrossEncoder(
            str(CHECKPOINTS[device]()), device=device, max_length=configuration.workload.max_length,
            model_kwargs={"dtype": DTYPES[device]}, execution=execution,
        )  # fmt: skip
        check_runs_as(self.model, execution, configuration.preset)
        self.shares_weights = weights is not None and share_weights(self.model.model, weights)
        if named_kernels and device == "cpu":
            on_device_thread(self.model)(name_compiled_kernels)
        self.model.warmup(configuration.workload.batch_size)
        self.model.pipeline.forward = self._clock.timed(self._loaded(self.model.pipeline.forward))

    def begin(self) -> None:
        """Set the clock to zero."""
        self._clock.begin()

    def load(self, job: Callable[[], object]) -> None:
        """Let the next forward pass do this job too."""
        self._job = job

    def device_seconds(self) -> float:
        """Seconds of forward passes since `begin`; see `DeviceClock`."""
        return self._clock.seconds()

    def _loaded(self, forward: Forward) -> Forward:
        def loaded(batch: Any) -> torch.Tensor:
            job, self._job = self._job, None
            if job is not None:
                job()
            return forward(batch)

        return loaded


def share_weights(model: torch.nn.Module, weights: torch.nn.Module) -> bool:
    """Let a model compute with another's tensors, so that both have them equally near in memory.

    Returns:
        False, with nothing shared, if a name, shape, dtype, layout, device or value differs.
    """
    ours, theirs = _tensors(model), _tensors(weights)
    if set(ours) != set(theirs) or not all(_alike(each, theirs[name]) for name, each in ours.items()):
        return False
    for name, tensor in ours.items():
        tensor.data = theirs[name].data
    return True


def _alike(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    described = [(each.shape, each.dtype, each.stride(), each.device) for each in (ours, theirs)]
    return described[0] == described[1] and torch.equal(ours, theirs)


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
