"""The gate on a GPU: quiet on unchanged code, not on code made 2% slower; then a baseline."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Final

from perf_tests.against import paired_request
from perf_tests.gate_check import REPOSITORY
from perf_tests.hopper.children import Ended, run_all
from perf_tests.hopper.run import Run
from xenc.gate.paired.session import check_pairable

CONFIGURATION: Final = {"cuda": "seed-packed", "cpu": "sentence-pairs-packed-eager"}
"""What the gate measures, by torch's device type."""

BASELINE_ROWS: Final = "gpu-seed and (packed or bucketed or sdpa-sorted) and not compiled"

SHARE_TO_CHECK: Final = 0.8
"""Share of the time for the gate's own check."""


def gate_stage(run: Run) -> None:
    """A gate on unchanged code, whose own control is the same code made 2% slower; then a baseline.

    The baseline is one session, of the rows that compile within seconds.
    """
    device = run.setting.device
    check = run.out / "gate-check.jsonl"
    _command(run, "gate", SHARE_TO_CHECK * run.left, (
        "-m", "perf_tests.gate_check", "live", str(check), "--count", "1", "--device", device,
        "--only", CONFIGURATION[device],
    ))  # fmt: skip
    if check.exists():
        run.results.gate = json.loads(check.read_text(encoding="utf-8").splitlines()[0])
    if device == "cuda":
        _baseline(run)


def warm_up(device: str) -> None:
    """Warm up what the gate compares, once, to fill the compiler's cache."""
    request = paired_request(device, None)
    rules = {CONFIGURATION[device]: request.rules[CONFIGURATION[device]]}
    check_pairable(replace(request, rules=rules), "HEAD", REPOSITORY, lock=None)


def _baseline(run: Run) -> None:
    session, folder = run.out / "session.json", run.out / "baseline"
    _command(run, "baseline", run.left, (
        "-m", "pytest", "perf_tests/test_predict.py", "-q", "-m", "gpu", "-k", BASELINE_ROWS,
        "--baseline-dir", str(folder), "--record-session", str(session),
    ))  # fmt: skip
    if session.exists():
        _command(run, "record", 60.0, (
            "-m", "xenc.gate.stored.record", str(session), "--baseline-dir", str(folder),
        ))  # fmt: skip


def _command(run: Run, name: str, seconds: float, command: tuple[str, ...]) -> None:
    """Run Python, show the end of what it prints, and note how it failed if it did."""

    def ended(_: str, how: Ended) -> None:
        run.say(f"  {name}: {how.seconds:.0f} s\n{how.output[-3000:]}")
        if how.problem is not None:
            run.results.problems[name] = how.problem

    run_all({name: command}, seconds, os.environ, ended)


if __name__ == "__main__":
    warm_up(*sys.argv[1:])
