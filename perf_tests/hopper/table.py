"""The table: rows made ready one after the other, then timed in turns."""

from __future__ import annotations

from typing import Final

from transformers import AutoTokenizer

from perf_tests.hopper.answers import check_answers, check_ranking
from perf_tests.hopper.rows import Row
from perf_tests.hopper.run import Run
from perf_tests.side_by_side.contestant import Contestant
from perf_tests.side_by_side.turns import Timed, time_in_turns
from perf_tests.workloads import Pair
from xenc.profiling.flops import device_peak, workload_flops
from xenc.text.tokens import tokenize

SHARE_TO_PREPARE: Final = 0.65
"""Share of the time that is left after which no further row is made ready, so that the others can be timed."""


def rows_in_turns(run: Run) -> None:
    """Make the run's rows ready, those of lower turns first, and time them."""
    setting, results = run.setting, run.results
    rounds = [setting.workload.round(number) for number in range(setting.rounds)]
    results.rows = [Timed(group=row.group, name=row.name, batch_size=row.batch_size) for row in run.rows]
    enough = (1 - SHARE_TO_PREPARE) * run.left
    ready: list[tuple[Contestant, Timed]] = []
    for row, timed in sorted(zip(run.rows, results.rows, strict=True), key=lambda both: both[0].turn):
        if run.left < enough:
            timed.problem = "no time was left to make it ready"
            continue
        _make_ready(run, row, timed, rounds[0])
        if timed.problem is None:
            ready.append((run.ready[row.name], timed))
    _describe(run, ready, rounds)
    run.say(f"{len(ready)} of {len(run.rows)} rows take turns")

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

    began = run.elapsed
    timed.problem = run.guarded(row.name, make)
    run.say(f"  {row.name}: {timed.problem or f'ready after {run.elapsed - began:.1f} s'}")
    run.keep()


def _describe(run: Run, ready: list[tuple[Contestant, Timed]], rounds: list[list[Pair]]) -> None:
    """Note the workload, its FLOPs and the device's peak."""
    setting, results = run.setting, run.results
    ours = [contestant.model for contestant, _ in ready if contestant.model is not None]
    if not ours:
        results.problems["rows"] = "no row of xenc's is ready, so that nothing is known of the workload"
        return
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
    results.round_flops = [workload_flops(ours[0].transformers_model, each) for each in counts]
