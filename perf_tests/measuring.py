"""One measuring process: two revisions side by side, warmed up, timed in turns. Started by the gate.

python -m perf_tests.measuring REQUEST.json RESULT.json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch

from perf_tests.against import PAIRED, PairedConfiguration
from perf_tests.arms import Arm
from perf_tests.explain import one_pass, stage_seconds
from perf_tests.extra_work import ExtraWork
from perf_tests.faults import inject
from perf_tests.gate_turns import Turns
from perf_tests.warm_arms import Warm, warm_up
from perf_tests.workloads import Pair
from xenc.gate.machine import Machine
from xenc.gate.paired.blocks import Block, run_blocks
from xenc.gate.paired.campaign import write_result
from xenc.gate.paired.revision import RevisionError, import_package

EXPLAINED: Final = 8
"""Rounds in which the stages are timed apart."""

Run = Callable[[Sequence[Pair]], float]


def main(request_path: str, result_path: str) -> None:
    """Measure what the request asks for and write the result."""
    turns = Turns()
    request = json.loads(Path(request_path).read_text())
    paired = PAIRED[request["device"]]
    if paired.one_core:
        stay_on_one_core()
    head = import_head(Path(request["head"]))
    try:
        packages = {
            "base": import_package(Path(request["base"]), "xenc_base"),
            "head": head,
            "same": import_package(Path(request["base"]), "xenc_same"),
        }
        warm = warm_up(request, paired, packages)
        if "turns" in request:
            turns.take(request, Path(result_path), lambda turn: measure(turn, warm.observed_anew()))
        else:
            write_result(Path(result_path), measure(request, warm))
    except RevisionError as error:
        write_result(Path(result_path), {"unmeasurable": str(error)})
    sys.stdout.flush()
    os._exit(0)  # without waiting for the threads of six models


def import_head(folder: Path) -> ModuleType:
    """Import the head; if that fails, it is the head's error and not a base that cannot be measured."""
    try:
        return import_package(folder, "xenc_head")
    except RevisionError as error:
        raise RuntimeError(f"the head itself cannot be imported: {error}") from error


def stay_on_one_core() -> None:
    """Cores of a shared machine differ in speed, and threads move between them."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure(request: Mapping[str, Any], warm: Warm) -> dict[str, Any]:
    """Measure all configurations, unless only the warm-up is asked for."""
    machine = warm.machine
    if request["only_warm_up"]:
        return {"machine": machine.facts(), "configurations": {}}
    break_heads(request["fault"], [arms["head"] for arms in warm.arms.values()])
    found = {
        each.name: measure_one(each, warm.arms[each.name], request, machine) for each in warm.configurations
    }
    weights = "shared" if warm.shares_weights else "NOT shared: the revisions' differ"
    return {"machine": {**machine.facts(), "weights": weights}, "configurations": found}


def measure_one(
    configuration: PairedConfiguration, arms: Mapping[str, Arm], request: Mapping[str, Any], machine: Machine
) -> dict[str, Any]:
    """One configuration's blocks, exact facts of each arm and, if asked for, where the time goes."""
    rounds = [configuration.workload.round(number) for number in range(configuration.palindromes)]
    for arm in arms.values():
        with arm.watched():
            arm.run(rounds[0])
    arms["head"].ready.extra = None  # of the previous configuration, which may have the same model
    arms["head"].ready.extra = slowness(request["fault"], arms["head"], rounds[0])

    def blocks_of(runs: Mapping[str, Run]) -> list[Block]:
        return run_blocks(
            runs, rounds,
            throttled=machine.throttled,
            around=lambda arm, _: arms["same" if arm == "slowed" else arm].watched(),
        )  # fmt: skip

    blocks = blocks_of({name: arm.run for name, arm in arms.items()})
    if "same" in arms:  # apart: next to its own copy an arm finds the caches warm
        same = arms["same"]
        work = same.extra_work(request["slowed"], rounds[0])
        seeded = blocks_of({"same": same.run, "slowed": same.slowed(work)})
        blocks += [replace(block, palindrome=len(rounds) + block.palindrome) for block in seeded]
    found = {
        "blocks": [block.as_json() for block in blocks],
        "facts": {name: arm.facts() for name, arm in arms.items()},
    }
    if request["explain"]:
        pairs = configuration.exact_on.round(0)
        explain(found, {name: arms[name] for name in ("base", "head")}, rounds[:EXPLAINED], pairs)
    return {**found, "findings": {name: arm.findings for name, arm in arms.items()}}


def explain(
    found: dict[str, Any], arms: Mapping[str, Arm], rounds: Sequence[Sequence[Pair]], pairs: Sequence[Pair]
) -> None:
    """Add where the time goes, and exact facts of scoring the pairs once."""
    passes = {name: one_pass(arm, pairs) for name, arm in arms.items()}
    found["kernels"] = {name: dict(seen.kernels) for name, seen in passes.items()}
    found["stages"] = {name: stage_seconds(arm, rounds) for name, arm in arms.items()}
    for name, seen in passes.items():
        found["facts"][name] |= arms[name].facts_of(pairs)
        found["facts"][name] |= {"kernels": seen.kernel_count, "peak_bytes": seen.peak_bytes}


def break_heads(fault: str | None, heads: Sequence[Arm]) -> None:
    """Put a fault into each model of the head, once; "slow" is added to each configuration's own blocks."""
    if fault is None or fault.startswith("slow:"):
        return
    for head in {id(head.model): head for head in reversed(heads)}.values():
        with head.watched(("eager_fallbacks",)):
            inject(fault, head.model)


def slowness(fault: str | None, head: Arm, pairs: Sequence[Pair]) -> ExtraWork | None:
    """The extra work of a fault "slow:FRACTION"; None for other faults."""
    name, _, share = (fault or "").partition(":")
    return head.extra_work(float(share), pairs) if name == "slow" else None


if __name__ == "__main__":
    main(*sys.argv[1:])
