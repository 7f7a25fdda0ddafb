"""The parts of a run, the most important first; a part that fails leaves the others alone."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

from transformers import AutoTokenizer

from perf_tests.cold_start import first_score
from perf_tests.hopper.ahead import compile_ahead, compiled_by_rule
from perf_tests.hopper.answers import check_answers, check_ranking, differing_scores
from perf_tests.hopper.contestants import Contestants
from perf_tests.hopper.landmark import sequences_per_second
from perf_tests.hopper.one_by_one import equal_requests, random_requests
from perf_tests.hopper.report import markdown
from perf_tests.hopper.results import Results
from perf_tests.hopper.rows import TUNED, Row, table_rows
from perf_tests.hopper.setting import Setting
from perf_tests.side_by_side.contestant import Contestant
from perf_tests.side_by_side.steps import Steps
from perf_tests.side_by_side.turns import Timed, time_in_turns
from perf_tests.workloads import Pair
from xenc.gate.machine import Machine
from xenc.profiling.flops import device_peak, workload_flops
from xenc.profiling.kernel_names import shares_by_class
from xenc.profiling.measure import profile_model
from xenc.profiling.report import markdown as profile_markdown
from xenc.text.tokens import tokenize

SHARE_TO_COMPILE: Final = 0.3
"""Share of the time to fill the compiler's cache in; the rest is compiled when its row is made ready."""

SHARE_TO_PREPARE: Final = 0.6
"""Share of the time after which no further row is made ready, so that the others can be timed."""


class Run(Steps):
    """One run in a setting, which begins nothing new after so many seconds; see `Steps`."""

    def __init__(self, setting: Setting, out: Path, seconds: float) -> None:
        self.machine = Machine(setting.device)
        super().__init__(out, Results(rehearsal=setting.device == "cpu"), markdown, self.machine.facts)
        self.setting, self.seconds = setting, seconds
        self.ready: dict[str, Contestant] = {}
        self._contestants = Contestants(setting)

    @property
    def left(self) -> float:
        return self.seconds - self.elapsed

    def part(self, name: str) -> None:
        """Run a part, or note why it could not run; write the results in any case."""
        self.say(name)
        if self.left <= 0:
            self.results.problems[name] = "no time was left"
        else:
            self.guarded(name, lambda: PARTS[name](self))
        self.keep()

    def contestant(self, row: Row) -> Contestant:
        """A row's contestant, made ready once."""
        if row.name not in self.ready:
            self.ready[row.name] = self._contestants.ready(row)
        return self.ready[row.name]

    def named(self, name: str) -> Contestant:
        return self.contestant(next(row for row in table_rows(self.setting) if row.name == name))


def compile_first(run: Run) -> None:
    """Fill the compiler's cache, on all cores."""
    if run.setting.device == "cuda":
        run.setting.checkpoint()  # made once, before several ask for it
        compile_ahead(compiled_by_rule(table_rows(run.setting)), SHARE_TO_COMPILE * run.seconds)


def rows_in_turns(run: Run) -> None:
    setting, results = run.setting, run.results
    rounds = [setting.workload.round(number) for number in range(setting.rounds)]
    _describe(run, rounds)
    rows = table_rows(setting)
    results.rows = [Timed(group=row.group, name=row.name, batch_size=row.batch_size) for row in rows]
    enough = (1 - SHARE_TO_PREPARE) * run.seconds
    ready = []
    for row, timed in sorted(zip(rows, results.rows, strict=True), key=lambda both: both[0].turn):
        if run.left < enough:
            timed.problem = "no time was left to make it ready"
            continue
        _make_ready(run, row, timed, rounds[0])
        if timed.problem is None:
            ready.append((run.ready[row.name], timed))
    run.say(f"{len(ready)} of {len(rows)} rows take turns")

    def time_left() -> bool:
        run.keep()
        return run.left > enough / 2

    count = time_in_turns(ready, rounds, after_each=run.machine.throttled, time_left=time_left)
    if count < len(rounds):
        results.problems["rounds"] = f"time for {count} of {len(rounds)}"


def _make_ready(run: Run, row: Row, timed: Timed, pairs: list[Pair]) -> None:
    def make() -> None:
        contestant = run.contestant(row)
        timed.warmup_s, timed.graphs = contestant.scorer.warmup_s, contestant.scorer.graphs
        check_answers(contestant, timed, pairs, run.setting)
        if row.quantize is not None:
            check_ranking(contestant, timed, pairs, run.setting)

    run.say(f"  {row.name}")
    timed.problem = run.guarded(row.name, make)
    run.keep()


def _describe(run: Run, rounds: list[list[Pair]]) -> None:
    setting, results = run.setting, run.results
    run.say("  the model, made if there is none yet")
    model = run.named("sdpa-sorted").model
    transformer = model.transformers_model
    tokenizer = AutoTokenizer.from_pretrained(setting.checkpoint())
    counts = [tokenize(tokenizer, pairs, max_length=setting.workload.max_length).counts for pairs in rounds]
    peak = device_peak(setting.device, setting.dtype)
    results.workload = {
        "workload": setting.workload.name, "fingerprint": setting.workload.fingerprint,
        "model": setting.checkpoint().name, "dtype": str(setting.dtype).removeprefix("torch."),
    }  # fmt: skip
    results.peak_flops_per_s, results.peak_source = peak.flops_per_s, peak.source
    results.round_pairs = [len(pairs) for pairs in rounds]
    results.round_tokens = [sum(each) for each in counts]
    results.round_flops = [workload_flops(transformer, each) for each in counts]


def requests(run: Run) -> None:
    """One request again and again, then of random sizes."""
    packed = run.named("packed")
    for name in ("packed", "packed-cudagraphs", TUNED):
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
    run.named("packed")
    for name in ("packed", TUNED, "packed-float8", "compiled-sdpa-sorted", "bucketed"):
        contestant = run.ready.get(name)
        if contestant is None or contestant.model is None or run.left <= 0:
            continue
        contestant.take_over()
        found = profile_model(contestant.model, pairs, batch_size=contestant.row.batch_size, repeats=3)
        run.results.profiles[name] = shares_by_class(found.traced.kernels)
        file = run.out / f"profile-{name.replace(', ', '-')}.md"
        file.write_text(profile_markdown(found), encoding="utf-8")


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


PARTS = {
    "compile": compile_first,
    "rows": rows_in_turns,
    "profiles": profiles,
    "requests": requests,
    "company": company,
    "cold-start": cold_start,
    "landmark": landmark,
}
"""The most important first."""
