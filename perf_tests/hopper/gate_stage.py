"""The gate on a GPU: quiet on unchanged code, not on code made 2% slower; then a baseline."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from typing import Any, Final

from perf_tests.against import CHECKPOINTS, REPOSITORY, paired_request
from perf_tests.hopper.children import Ended, compiling_environment, run_all
from perf_tests.hopper.gate_at_once import GateAtOnce
from perf_tests.hopper.run import Run
from xenc.gate.verdict import Verdict

CONFIGURATION: Final = {"cuda": "crossed-packed", "cpu": "sentence-pairs-packed-eager"}
"""What the gate measures, by torch's device type."""

CONTROL: Final = 0.05
"""By how much the control is slower."""

PALINDROMES: Final = {"cuda": 5, "cpu": 200}
"""At most, in each process: a run on a GPU has minutes."""

BASELINE_ROWS: Final = "gpu-seed and (packed or bucketed or sdpa-sorted) and not compiled"

SHARE_TO_CHECK: Final = 0.9
"""Share of the time for the gate's own check."""


def gate_stage(run: Run) -> None:
    """A gate on unchanged code, then on the same code made slower; then, in a stage of its own, a baseline.

    The baseline is one session, of the rows that compile within seconds.
    """
    device, alone = run.setting.device, not run.rows
    if "gate" in run.results.problems:  # its processes did not warm up
        return
    gate, run.gate = run.gate or begin_gate(device), None
    run.guarded("gate", lambda: finish_gate(run, gate, SHARE_TO_CHECK * run.left))
    if device == "cuda" and alone:
        _baseline(run)


def begin_gate(device: str) -> GateAtOnce:
    """A gate whose processes have started, on "cuda" or "cpu"; to be closed, as `finish_gate` does."""
    CHECKPOINTS[device]()  # made once, before several ask for it
    request = paired_request(device, names=(CONFIGURATION[device],))
    # the control is slower than what is to be found: tokenizing may hide a little work from the wall clock
    slowed = replace(request, seeded=CONTROL)
    gate = GateAtOnce(
        slowed, REPOSITORY, compiling_environment(), slower=request.slowed, palindromes=PALINDROMES[device]
    )
    gate.start()
    return gate


def finish_gate(run: Run, gate: GateAtOnce, seconds: float) -> None:
    """Wait until its processes are warm, let them measure, keep what they found, and close it.

    Raises:
        UnpairableError, CampaignError: a process did not become warm.
    """
    deadline = run.elapsed + seconds
    try:
        gate.wait_ready(seconds)
        run.say(f"  gate: all processes are warm, {deadline - run.elapsed:.0f} s are left to measure")
        found = gate.measure(lambda line: run.say(f"  {line}"), deadline - run.elapsed)
    finally:
        gate.close()
        with gzip.open(run.out / "gate.json.gz", "wt", encoding="utf-8") as file:  # also of a pass cut short
            json.dump(gate.results, file)
    run.results.gate = found
    run.results.problems |= _unexpected(found)


def _unexpected(found: dict[str, Any]) -> dict[str, str]:
    """How the gate failed, or what it said that it should not have."""
    problems = {}
    passes = {"gate, unchanged code": (found, Verdict.PASS)}
    if "slowed" in found:
        passes["gate, slowed code"] = (found["slowed"], Verdict.REGRESSED)
    for what, (said, expected) in passes.items():
        if said.get("error"):
            problems[what] = said["error"]
        wrong = {verdict for verdict, _ in said["verdicts"].values()} - {str(expected)}
        if wrong:
            problems[what] = f"{', '.join(sorted(wrong))}, expected {expected}"
    return problems


def _baseline(run: Run) -> None:
    folder = run.out / "baseline"
    _command(run, "baseline", run.left, (
        "-m", "pytest", "perf_tests/test_predict.py", "-q", "-m", "gpu", "-k", BASELINE_ROWS,
        "--gate-baselines", str(folder), "--gate-record",
    ))  # fmt: skip


def _command(run: Run, name: str, seconds: float, command: tuple[str, ...]) -> None:
    """Run Python, show the end of what it prints, and note how it failed if it did."""

    def ended(_: str, how: Ended) -> None:
        run.say(f"  {name}: {how.seconds:.0f} s\n{how.output[-3000:]}")
        if how.problem is not None:
            run.results.problems[name] = how.problem

    run_all({name: command}, seconds, os.environ, ended)
