"""One test in every revision, warmed up -> what a measuring process found: blocks, facts, where time goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...profiling.kernel_names import added
from ..errors import RevisionError, SubjectError
from .arms import Arm
from .blocks import Block, run_blocks
from .explain import look_inside, stages_of
from .machine import Machine


def measure(arms: Mapping[str, Arm], asked: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """Measure one test.

    Args:
        arms: "base" and "head"; of the first test also "same", on which the controls run.
        asked: see `paired.session.process_request`.
        machine: asked for throttling after each block.

    Raises:
        RevisionError: the base has no facts of its own, which the head has.
    """
    inputs = {name: arm.subject.timed(asked.get("palindromes")) for name, arm in arms.items()}
    for name, arm in arms.items():
        with arm.watched():
            arm.run(inputs[name][0])
    arms["head"].extra = None
    if asked["head_slower"]:
        arms["head"].extra = arms["head"].work(asked["head_slower"], inputs["head"][0])
    sides = {name: arms[name] for name in ("base", "head")}
    found: dict[str, Any] = {
        "blocks": [block.as_json() for block in _blocks(arms, inputs, asked["slowed"], machine)],
        "facts": {name: arm.counts | _own_facts(name, arm) for name, arm in sides.items()},
        "findings": {name: arm.findings for name, arm in sides.items()},
    }
    return found | (_explained(sides, asked, found["facts"]) if asked["explain"] else {})


def _blocks(
    arms: Mapping[str, Arm], inputs: Mapping[str, list[Any]], slowed: float, machine: Machine
) -> list[Block]:
    """Every arm runs inputs of its own, which its revision may have made."""
    rounds = range(len(inputs["head"]))

    def blocks_of(runs: Mapping[str, Callable[[Any], float]]) -> list[Block]:
        own = {arm: inputs["same" if arm == "slowed" else arm] for arm in runs}
        return run_blocks(
            {arm: _of_round(run, own[arm]) for arm, run in runs.items()}, rounds,
            throttled=machine.throttled,
            around=lambda arm, _: arms["same" if arm == "slowed" else arm].watched(),
        )  # fmt: skip

    blocks = blocks_of({name: arm.run for name, arm in arms.items()})
    if "same" not in arms:
        return blocks
    same = arms["same"]  # slowed apart: next to its own copy an arm finds the caches warm
    seeded = blocks_of({"same": same.run, "slowed": same.slowed(same.work(slowed, inputs["same"][0]))})
    return blocks + [replace(block, palindrome=len(rounds) + block.palindrome) for block in seeded]


def _of_round(run: Callable[[Any], float], inputs: list[Any]) -> Callable[[int], float]:
    return lambda number: run(inputs[number])


def _own_facts(name: str, arm: Arm) -> dict[str, float | None]:
    try:
        return arm.subject.own_facts()
    except SubjectError:  # the test's own fault, in every revision
        raise
    except Exception as error:
        if name == "head":
            raise
        raise RevisionError(f"the base revision has no facts: {type(error).__name__}: {error}") from error


def _explained(
    sides: Mapping[str, Arm], asked: Mapping[str, Any], facts: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Where the time of each arm goes; adds what was counted to its facts."""
    found: dict[str, dict[str, Any]] = {"kernels": {}, "stages": {}, "functions": {}}
    package = asked["package"]
    for name, arm in sides.items():
        seen = look_inside(arm.subject, asked["device"], Path(asked[name], package))
        found["kernels"][name] = added(
            (without_revision(kernel, package), *counted) for kernel, counted in seen.kernels.items()
        )
        found["functions"][name] = dict(seen.functions)
        found["stages"][name] = dict(stages_of(arm.subject, asked["device"]))
        facts[name].update(seen.facts)
    return found


def without_revision(kernel: str, package: str) -> str:
    """The name of a kernel as the package itself gives it, not the copy of one revision."""
    return re.sub(rf"\b{re.escape(package)}_(base|head|same)(?=_|\b)", package, kernel)
