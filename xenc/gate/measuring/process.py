"""A measuring process: pytest again, with one option more. It runs each test once for every revision.

What the tests hand over is warmed up, run in turns and counted; the result is one file of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import torch

from ...compiling.watch import watch_compiles
from ...profiling.kernels import name_compiled_kernels
from ..errors import RevisionError, SubjectError
from ..fixture import Gate, modes
from ..paired.campaign import write_result
from ..paired.revision import import_package
from .arms import Arm
from .machine import Machine
from .sides import measure
from .subject import Subject
from .turns import Turns

_OF_THE_PARENT: Final[Mapping[str, object]] = {
    "xmlpath": None, "basetemp": None, "usepdb": False, "trace": False, "lf": False, "failedfirst": False,
    "benchmark_save": None, "benchmark_autosave": False, "benchmark_json": None, "benchmark_histogram": None,
    "benchmark_compare": [], "benchmark_compare_fail": None, "benchmark_disable": False,
    "benchmark_skip": False, "log_file": None,
}  # fmt: skip
"""Options that only the pytest that started this one obeys."""


def ignore_unused(config: pytest.Config) -> None:
    """Ignore a warning of pytest-benchmark's: with --against its fixture is not what measures."""
    given = config.known_args_namespace  # where pytest looks for -W, which counts more than its settings
    given.pythonwarnings = [*(given.pythonwarnings or []), "ignore:Benchmark fixture was not used"]


class MeasuringProcess:
    """The hooks of a measuring process; the first thing that it makes.

    Args:
        config: pytest's.
        request: the file that says what to measure; see `paired.session.process_request`.
        result: the file to be written.
    """

    def __init__(self, config: pytest.Config, request: Path, result: Path) -> None:
        self._turns = Turns()
        self._asked = json.loads(request.read_text(encoding="utf-8"))
        self._result = result
        if self._asked["device"] != "cuda":
            stay_on_one_core()
        if self._asked["explain"]:
            name_compiled_kernels()
        for name, value in _OF_THE_PARENT.items():
            if hasattr(config.option, name):
                setattr(config.option, name, value)
        ignore_unused(config)
        self._packages: dict[str, ModuleType] = {}
        self._machine: Machine | None = None
        self._remarks: dict[str, str] = {}
        self._taken: Subject | None = None
        self._found: dict[str, Any] = {}

    def gate_for(self, *_: object) -> Gate:
        """What fixtures of a test get; the test itself gets one for each revision."""

        def outside(*_: object) -> Any:
            raise SubjectError(
                "gate was used by a fixture: use it in the test itself, which runs once for each revision."
            )

        return Gate(self._asked["device"], outside, outside)

    def _gate_of(self, arm: str) -> Gate:
        gate = Gate(self._asked["device"], lambda: self._packages[arm], self._take)
        gate.arm, gate.explains, gate.remarks = arm, self._asked["explain"], self._remarks
        return gate

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that are asked for."""
        names = self._asked["names"]
        items[:] = sorted(
            (item for item in items if item.nodeid in names), key=lambda item: names.index(item.nodeid)
        )  # fmt: skip
        self._import()
        self._machine = Machine(self._asked["device"])

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        """Run a test for every revision, and measure what it hands over."""
        assert self._machine is not None
        try:
            arms = self._arms(pyfuncitem)
            if "turns" in self._asked:
                self._turns.take(
                    self._asked, self._result, lambda turn: self._turn(pyfuncitem.nodeid, arms, turn)
                )
                self._end(None)
            if not self._asked["only_warm_up"]:
                self._found[pyfuncitem.nodeid] = measure(arms, self._asked, self._machine)
        except RevisionError as error:
            self._end({"unmeasurable": str(error)})
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the result, if every test was measured."""
        if exitstatus == 0 and self._machine is not None:
            self._end({"machine": self._facts(self._machine), "configurations": self._found})

    def _end(self, result: Mapping[str, Any] | None) -> None:
        """Write a result and end at once, without waiting for the threads of several models."""
        if result is not None:
            write_result(self._result, result)
        sys.stdout.flush()
        os._exit(0)

    def _import(self) -> None:
        folders, package = self._asked, self._asked["package"]
        try:
            self._packages["head"] = import_package(Path(folders["head"]), f"{package}_head", package)
        except RevisionError as error:  # the head's error, and not a base that cannot be measured
            raise pytest.UsageError(f"the head itself cannot be imported: {error}") from error
        try:
            for arm in ("base", "same"):
                self._packages[arm] = import_package(Path(folders["base"]), f"{package}_{arm}", package)
        except RevisionError as error:
            self._end({"unmeasurable": str(error)})

    def _take(self, subject: Subject) -> None:
        if self._taken is not None:
            raise SubjectError("gate.measure was called twice in one test: measure one thing in each test.")
        self._taken = subject

    def _arms(self, item: pytest.Function) -> dict[str, Arm]:
        """What a test hands over for each revision, warmed up; the controls run on the first test.

        Base and head take turns in being made first: the later one is a little faster.

        Raises:
            RevisionError: the base revision cannot run the test.
        """
        turns = ("base", "head") if self._asked["number"] % 2 == 0 else ("head", "base")
        controls = item.nodeid == self._asked["names"][0]
        arms = {}
        for name in (*turns, "same") if controls else turns:
            try:
                arms[name] = self._arm(name, item)
            except SubjectError:  # the test's own fault, in every revision
                raise
            except (Exception, pytest.skip.Exception) as error:
                if name == "head":
                    raise
                what = f"{type(error).__name__}: {error}"
                raise RevisionError(f"the base revision cannot run {item.name}: {what}") from error
        if len({arm.subject.fingerprint for arm in arms.values()}) > 1:
            raise RevisionError(f"the inputs of {item.name} are not the same in both revisions")
        return arms

    def _arm(self, name: str, item: pytest.Function) -> Arm:
        gate, self._taken = self._gate_of(name), None
        arguments = {each: item.funcargs[each] for each in item._fixtureinfo.argnames}
        with watch_compiles() as watch:
            item.obj(**{**arguments, "gate": gate} if "gate" in arguments else arguments)
            self._check(item, gate)
            assert self._taken is not None
            self._taken.warm_up()
        arm = Arm(self._taken, self._asked["device"], watch.report)
        with arm.watched():  # after the warm-up nothing may compile
            arm.run(self._taken.inputs[0])
        return arm

    def _check(self, item: pytest.Item, gate: Gate) -> None:
        """That a test handed over something that can be run later, and made of this revision."""
        package = self._asked["package"]
        if self._taken is None:
            raise SubjectError(f"{item.nodeid} never called gate.measure.")
        if gate.modes != modes(gate.device):
            raise SubjectError(
                f"{item.nodeid} called gate.measure within a block such as torch.inference_mode(), which has "
                "ended before anything is timed: enter it in what is measured."
            )
        if package in sys.modules and package != __name__.partition(".")[0]:
            raise SubjectError(
                f"{package} was imported by name, by {item.nodeid}, a conftest or the package itself: both "
                "revisions would run that copy. Take it from gate.package."
            )

    def _turn(self, name: str, arms: Mapping[str, Arm], turn: Mapping[str, Any]) -> dict[str, Any]:
        """What a process finds in one of its turns, on a machine that is observed from then on."""
        machine = Machine(self._asked["device"])
        found = measure(arms, turn, machine)
        return {"machine": self._facts(machine), "configurations": {name: found}}

    def _facts(self, machine: Machine) -> dict[str, Any]:
        return machine.facts() | self._remarks


def stay_on_one_core() -> None:
    """Cores of a shared machine differ in speed, and threads move between them."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def command_of(arguments: Sequence[str]) -> tuple[str, ...]:
    """What starts a measuring process of a pytest that was started with some arguments.

    The gate is loaded first: pytest takes the values of an option that it does not know yet for paths.
    Capturing would put something else in the place of standard input, the pipe from the parent.
    """
    early, late = ("-p", "xenc.gate"), ("--capture=no", "--gate-process")
    return (sys.executable, "-m", "pytest", *early, *arguments, *late)
