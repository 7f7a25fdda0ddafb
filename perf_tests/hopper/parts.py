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
from perf_tests.hopper.ahead import commands_of, compile_ahead
from perf_tests.hopper.answers import differing_scores
from perf_tests.hopper.children import Ended
from perf_tests.hopper.gate_stage import gate_stage
from perf_tests.hopper.kernels import all_kernels
from perf_tests.hopper.landmark import sequences_per_second
from perf_tests.hopper.one_by_one import equal_requests, random_requests
from perf_tests.hopper.results import sound
from perf_tests.hopper.rows import PROFILED, REQUESTED
from perf_tests.hopper.run import Run
from perf_tests.hopper.smoke import look_at_all
from perf_tests.hopper.table import rows_in_turns
from xenc.profiling.kernel_names import shares_by_class
from xenc.profiling.measure import profile_model
from xenc.profiling.report import markdown as profile_markdown

SHARE_TO_COMPILE: Final = 0.3
"""Share of the time to fill the compiler's cache in; the rest is compiled when its row is made ready."""

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


def compile_first(run: Run) -> None:
    """Fill the compiler's cache, on all cores."""

    def ended(name: str, how: Ended) -> None:
        run.say(f"  {name}: {how.problem or f'{how.seconds:.0f} s'}")

    if run.setting.device == "cuda":
        run.setting.checkpoint()  # made once, before several ask for it
        geometries = {each.name: ("-m", modular.__name__, each.name) for each in run.setting.geometries}
        commands = commands_of(run.rows) | geometries
        compile_ahead(commands, SHARE_TO_COMPILE * run.seconds, ended)


def kernels(run: Run) -> None:
    """Single kernels in several ways."""
    if run.setting.device == "cuda":
        run.results.kernels = all_kernels(run.say, lambda: run.left > 0)


def requests(run: Run) -> None:
    """One request again and again, then of random sizes."""
    packed = run.named("packed")
    for name in REQUESTED:
        if name in run.ready and run.left > 0:
            run.results.equal_requests.append(equal_requests(run.ready[name], run.setting))
    run.results.random_requests = random_requests(packed, run.setting, lambda: run.left > 0)


def company(run: Run) -> None:
    """Whether scores depend on what they are scored with."""
    pairs = run.setting.workload.round(0)[:256]
    for name in ("packed-deterministic", "packed"):
        run.results.differing_scores[name] = differing_scores(run.named(name), pairs)


def profiles(run: Run) -> None:
    """Where the time goes, under the executions that matter."""
    pairs = run.setting.workload.round(0)
    for name in PROFILED:
        contestant = run.ready.get(name)
        if contestant is None or contestant.model is None or run.left <= 0:
            continue
        contestant.take_over()
        found = profile_model(contestant.model, pairs, batch_size=contestant.row.batch_size, repeats=3)
        run.results.profiles[name] = shares_by_class(found.traced.kernels)
        file = run.out / f"profile-{name.replace(', ', '-').replace(' ', '-')}.md"
        file.write_text(profile_markdown(found), encoding="utf-8")


def modernbert(run: Run) -> None:
    """Rerankers of ModernBERT's architecture beside sentence-transformers, padded and flattened."""
    setting = run.setting
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
        for number, name in enumerate(("nothing saved", "saved", "saved", "saved")):
            if number > 1 and run.left <= 0:
                return
            started = time.monotonic()
            limit = max(1.0, run.left)
            first_score(*what, saved, Path(folder) / f"compiler-{number}", seconds=limit)
            run.results.first_score_s.setdefault(name, []).append(time.monotonic() - started)


PARTS: Final[MappingProxyType[str, Callable[[Run], None]]] = MappingProxyType(
    {
        "smoke": smoke,
        "compile": compile_first,
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
