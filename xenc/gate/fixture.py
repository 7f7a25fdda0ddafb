"""The `gate` fixture: a test makes what is to be timed from `gate.package` and hands it to `gate.measure`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ..compiling.watch import watch_compiles
from .errors import SubjectError
from .exact import compile_counts
from .measuring.explain import look_inside, stages_of
from .measuring.rounds import time_rounds
from .measuring.subject import Subject

GATE = "xenc-gate"
"""The name of the plugin that makes the fixture: `plugin.GatePlugin`, or `process.MeasuringProcess`."""


class Gate:
    """What a test of speed uses.

    With `--against` the test runs once for each revision, and what it hands over is timed in turns; otherwise
    it is timed at once. So build everything inside the test, and call `measure` last.

    Args:
        device: torch's device type, "cpu" or "cuda".
        package: makes the package under measurement.
        measured: takes what the test hands over.

    Attributes:
        arm: "" without `--against`, else "base", "head" or "same" (the base once more).
        explains: whether this run also counts kernels and facts, which takes time.
        remarks: what the report is to say beside the facts of the machine, by name.
        modes: PyTorch's modes when `measure` was called.
    """

    def __init__(
        self, device: str, package: Callable[[], ModuleType], measured: Callable[[Subject], None]
    ) -> None:
        self.device, self._package, self._measured = device, package, measured
        self.arm = ""
        self.explains = True
        self.remarks: dict[str, str] = {}
        self.modes: tuple[bool, ...] = ()

    @property
    def package(self) -> ModuleType:
        """The package under measurement; with `--against` that of one revision.

        Raises:
            SubjectError: the setting `gate_package` does not name a package.
        """
        return self._package()

    def measure(self, run: Callable[[Any], Any], inputs: Sequence[Any], **known: Any) -> None:
        """Time `run` on each input.

        Args:
            run: is called with one input. It returns when the work is done, or launched on a GPU.
            inputs: what it is called with.
            **known: fields of `Subject`: rounds, warmup, oracle and tolerance, facts, ...

        Raises:
            SubjectError: it cannot be measured; the message says why.
        """
        self.modes = modes(self.device)
        self._measured(Subject(run=run, inputs=inputs, **known))


def modes(device: str) -> tuple[bool, ...]:
    """Whether gradients, inference mode and autocast are on."""
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled(device)


@pytest.fixture
def gate(request: pytest.FixtureRequest, benchmark: Any) -> Any:
    """A `Gate` for this test. It needs pytest-benchmark's fixture, which keeps the rounds."""
    plugin: Any = request.config.pluginmanager.get_plugin(GATE)
    with ExitStack() as open_while_testing:
        yield plugin.gate_for(request.node, benchmark, open_while_testing)


def measures_at_once(
    benchmark: Any, device: str, package: str, open_while_testing: ExitStack, *, explains: bool
) -> Callable[[Subject], None]:  # fmt: skip
    """How a test is measured without `--against`: at once, with pytest-benchmark's fixture.

    What compiles between this call and the first round belongs to the warm-up. A run that `explains` also
    keeps the time of stages, kernels and functions.
    """
    making = open_while_testing.enter_context(watch_compiles())

    def measured(subject: Subject) -> None:
        subject.warm_up()
        subject.check(subject.run(subject.inputs[0]))
        warmup = making.report
        timing = time_rounds(benchmark, subject.run, subject.timed())
        facts = subject.own_facts()
        seen = look_inside(subject, device, folder_of(package))
        if explains:
            stages = dict(stages_of(subject, device))
            parts = {"stages": stages, "kernels": dict(seen.kernels), "functions": dict(seen.functions)}
            benchmark.extra_info["breakdown"] = parts
        bounds = {name: facts.pop(name) for name in ("output_error", "output_tolerance") if name in facts}
        exact = {"graphs": warmup.graphs, **seen.facts, **facts}
        benchmark.extra_info.update(
            compile_counts(timing.compiles),
            workload_fingerprint=subject.fingerprint,
            exact={k: v for k, v in exact.items() if v is not None},
            **bounds,
        )

    return measured


def folder_of(package: str) -> Path | None:
    """A package's own folder; None without a name."""
    found = find_spec(package) if package else None
    return None if found is None or found.origin is None else Path(found.origin).parent


def package_named(name: str) -> Callable[[], ModuleType]:
    """Imports the package that the setting `gate_package` names."""

    def package() -> ModuleType:
        if not name:
            raise SubjectError(
                "gate.package needs the name of your package: write gate_package = NAME into pytest's "
                "settings (pytest.ini, or [tool.pytest.ini_options] of pyproject.toml)."
            )
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            raise SubjectError(f"gate_package = {name}: there is no such package: {error}.") from error

    return package
