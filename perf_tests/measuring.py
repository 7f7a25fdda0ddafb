"""One measuring process: two revisions side by side, warmed up, timed in turns. Started by the gate.

python -m perf_tests.measuring REQUEST.json RESULT.json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from xenc.gate.campaign import end_with_parent, write_result
from xenc.gate.revision import RevisionError, import_package

from perf_tests.against import PAIRED, Paired, PairedConfiguration
from perf_tests.arms import Arm
from perf_tests.explain import one_pass, stage_seconds
from perf_tests.faults import inject
from perf_tests.ready_models import ReadyModel
from perf_tests.workloads import Pair
from xenc.gate.machine import Machine
from xenc.gate.paired import run_blocks

Run = Callable[[Sequence[Pair]], float]


def main(request_path: str, result_path: str) -> None:
    """Measure what the request asks for and write what came of it."""
    end_with_parent()
    request = json.loads(Path(request_path).read_text())
    paired = PAIRED[request["device"]]
    if paired.threads is not None:
        torch.set_num_threads(paired.threads)
    try:
        packages = {
            "base": import_package(Path(request["base"]), "xenc_base"),
            "head": import_package(Path(request["head"]), "xenc_head"),
            "same": import_package(Path(request["base"]), "xenc_same"),
        }
        result = measure(request, paired, packages)
    except RevisionError as error:
        result = {"unmeasurable": str(error)}
    write_result(Path(result_path), result)
    sys.stdout.flush()
    os._exit(0)  # nothing is left to do, and threads of six models need not be waited for


def measure(request: Mapping[str, Any], paired: Paired, packages: Mapping[str, ModuleType]) -> dict[str, Any]:
    """All configurations that the request names, the one with the controls first."""
    machine = Machine(request["device"])
    wanted = [each for each in paired.configurations if each.name in request["configurations"]]
    models: dict[tuple[object, ...], ReadyModel] = {}
    ready = {each.name: arms_of(each, packages, request, models) for each in wanted}
    found = {}
    for configuration in wanted:
        arms = ready[configuration.name]
        rounds = [configuration.workload.round(number) for number in range(configuration.palindromes)]
        if request["only_warm_up"]:
            continue
        blocks = run_blocks(
            runs_of(arms, request, rounds[0]), rounds,
            throttled=machine.throttled,
            around=lambda arm, _, arms=arms: arms["same" if arm == "slowed" else arm].watched(),
        )  # fmt: skip
        found[configuration.name] = {
            "blocks": [block.as_json() for block in blocks],
            "facts": {name: arm.facts(rounds[0]) for name, arm in arms.items()},
            "findings": {name: arm.findings for name, arm in arms.items()},
        }
        if request["explain"]:
            explain(found[configuration.name], arms, rounds)
    return {"machine": machine.facts(), "configurations": found}


def explain(found: dict[str, Any], arms: Mapping[str, Arm], rounds: Sequence[Sequence[Pair]]) -> None:
    """Add what the time goes to in base and head, how many kernels they launch and the memory they take."""
    compared = {name: arms[name] for name in ("base", "head")}
    passes = {name: one_pass(arm, rounds[0]) for name, arm in compared.items()}
    found["kernels"] = {name: dict(seen.kernels) for name, seen in passes.items()}
    found["stages"] = {name: stage_seconds(arm, rounds) for name, arm in compared.items()}
    for name, seen in passes.items():
        found["facts"][name] |= {"kernels": seen.kernel_count, "peak_bytes": seen.peak_bytes}


def arms_of(
    configuration: PairedConfiguration,
    packages: Mapping[str, ModuleType],
    request: Mapping[str, Any],
    models: dict[tuple[object, ...], ReadyModel],
) -> dict[str, Arm]:
    """Who takes part, warmed up. Configurations that differ in their texts alone share a model.

    Raises:
        RevisionError: the base revision cannot run this configuration.
    """
    arms = {}
    for name in ("base", "head", "same") if configuration.control else ("base", "head"):
        key = (name, configuration.preset, *configuration.changes.items(), configuration.workload.max_length)
        try:
            if key not in models:
                models[key] = ReadyModel(packages[name], configuration, request["device"])
        except Exception as error:
            if name == "head":
                raise
            raise RevisionError(
                f"the base revision cannot run {configuration.name}: {type(error).__name__}: {error}"
            ) from error
        other = request["base" if name == "head" else "head"]
        arms[name] = Arm(models[key], configuration, other=other)
    return arms


def runs_of(arms: Mapping[str, Arm], request: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Run]:
    """What is timed, by arm, each run once: the models, and the one that is slowed on purpose."""
    runs: dict[str, Run] = {name: arm.run for name, arm in arms.items()}
    for run in runs.values():
        run(pairs)
    fault = request["fault"] or ""
    if fault.startswith("slow:"):
        share = float(fault.removeprefix("slow:"))
        arms["head"].ready.extra = arms["head"].extra_work(share, pairs)
    elif fault:
        inject(fault, arms["head"].model)
    if "same" in arms:
        runs["slowed"] = arms["same"].slowed(arms["same"].extra_work(request["slowed"], pairs))
    return runs


if __name__ == "__main__":
    main(*sys.argv[1:])
