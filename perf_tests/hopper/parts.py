"""The parts of a stage; a part that fails leaves the others alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Final

from perf_tests.cold_start import first_score
from perf_tests.hopper import modular
from perf_tests.hopper.children import Ended, compiling_environment, run_all
from perf_tests.hopper.gate_stage import begin_gate, gate_stage
from perf_tests.hopper.kernels import all_kernels
from perf_tests.hopper.landmark import sequences_per_second
from perf_tests.hopper.results import sound
from perf_tests.hopper.rows import PROFILED, REQUESTED
from perf_tests.hopper.run import Run
from perf_tests.hopper.smoke import look_at_all
from perf_tests.hopper.table import rows_in_turns

SHARE_TO_COMPILE: Final = 0.28
"""Share of the run's time to compile ModernBERT's graphs in."""

LONGEST_REQUESTS_S: Final = 75.0
"""Seconds for requests of random sizes."""

SHARE_TO_SMOKE: Final = 0.45
"""Share of the time for the first look at every path."""


def run_part(run: Run, name: str) -> None:
    """Run a part, or note why it could not run; write the results in any case."""
    run.say(name)
    if run.left <= 0:
        run.results.problems[name] = "no time was left"
    else:
        run.guarded(name, lambda: PARTS[name](run))
    run.keep()


def smoke(run: Run) -> None:
    """Every path once."""
    run.results.smoke = look_at_all(run.setting, SHARE_TO_SMOKE * run.seconds, run.say)
    for entry in run.results.smoke:
        if not sound(entry):
            run.results.problems[f"smoke, {entry['path']}"] = entry["problem"] or "WRONG"


def ahead(run: Run) -> None:
    """Start the gate's processes, to warm up while the rows do."""
    run.setting.checkpoint()  # made once, before several ask for it
    run.gate = begin_gate(run.setting.device)


def kernels(run: Run) -> None:
    """Single kernels in several ways."""
    if run.setting.device == "cuda":
        run.results.kernels = all_kernels(run.say, lambda: run.left > 0)


def requests(run: Run) -> None:
    """One request a few times under several rows, often under the fastest; then requests of random sizes."""
    few, found = run.setting.few_requests, run.results.equal_requests
    for name in (name for name in REQUESTED if name in run.ready and run.results.row(name)):
        found.append(run.named(name).ask("equal_requests", few))
    if run.left < LONGEST_REQUESTS_S:
        run.results.problems["many requests"] = "no time was left"
        return
    best = min(found, key=lambda each: each["p50_s"])
    found.append(run.named(best["execution"]).ask("equal_requests", run.setting.equal_requests))
    limit = min(LONGEST_REQUESTS_S, max(1.0, run.left))
    asked = run.named(best["execution"]).ask("random_requests", limit, seconds=limit + 60)
    run.results.random_requests = asked


def company(run: Run) -> None:
    """Whether scores depend on what they are scored with."""
    pairs = run.setting.workload.round(0)[:256]
    for name in ("packed-deterministic", "packed"):
        run.results.differing_scores[name] = run.named(name).ask("differing_scores", pairs)


def profiles(run: Run) -> None:
    """Where the time goes, under the executions that matter, and what compiling took."""
    for name in (name for name in PROFILED if name in run.ready and run.left > 0):
        file = run.out / f"profile-{name.replace(', ', '-').replace(' ', '-')}.md"
        run.results.profiles[name] = run.named(name).ask("profile", file.absolute())
        run.results.compile_seconds[name] = run.named(name).ask("compile_seconds")


def modernbert(run: Run) -> None:
    """Rerankers of ModernBERT's architecture beside sentence-transformers, padded and flattened."""

    def ended(name: str, how: Ended) -> None:
        run.say(f"  {name}: {how.problem or f'compiled in {how.seconds:.0f} s'}")

    setting = run.setting
    if setting.device == "cuda":
        commands = {each.name: ("-m", modular.__name__, each.name) for each in setting.geometries}
        limit = min(run.left, SHARE_TO_COMPILE * run.seconds)
        run_all(commands, limit, compiling_environment(), ended)
    run.results.modular = modular.modular_rows(setting, setting.geometries, lambda: run.left > 0, run.say)


def landmark(run: Run) -> None:
    """BERT-large in eight bits and in the table's precision."""
    for preset in ("packed", "packed-float8"):
        if preset in run.setting.left_out:
            continue
        for length in run.setting.lengths:
            if run.left > 0:
                run.results.landmark.append(sequences_per_second(run.setting, length, preset))


def cold_start(run: Run) -> None:
    """From the start of a process to its first score."""
    setting = run.setting
    what = setting.checkpoint(), setting.device, setting.dtype
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "saved"
        for number, name in enumerate(("nothing saved", "saved", "saved")):
            if number > 1 and run.left <= 0:
                return
            started = time.monotonic()
            limit = max(1.0, run.left)
            steps = first_score(*what, saved, Path(folder) / f"compiler-{number}", seconds=limit)
            run.results.first_score_s.setdefault(name, []).append(time.monotonic() - started)
            run.say(f"  {name}: {run.results.first_score_s[name][-1]:.1f} s: {steps}")
            run.results.first_score_steps.append({"name": name, **steps})


PARTS: Final[MappingProxyType[str, Callable[[Run], None]]] = MappingProxyType(
    {
        "smoke": smoke,
        "ahead": ahead,
        "rows": rows_in_turns,
        "kernels": kernels,
        "profiles": profiles,
        "requests": requests,
        "company": company,
        "cold start": cold_start,
        "modernbert": modernbert,
        "landmark": landmark,
        "gate": gate_stage,
    }
)
