"""The table: rows made ready in processes of their own, then timed in turns."""

from __future__ import annotations

from functools import partial
from typing import Final

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from perf_tests.hopper.fleet import RemoteRow
from perf_tests.hopper.rows import Row
from perf_tests.hopper.run import Run
from perf_tests.side_by_side.turns import Timed, time_in_turns
from perf_tests.workloads import Pair
from xenc.profiling.flops import device_peak, workload_flops
from xenc.text.tokens import tokenize

SHARE_TO_COMPILE: Final = 0.28
"""Share of the run's time after which a row is given up that is not ready."""

SHARE_TO_TUNE: Final = 0.18
"""The same, for rows whose kernels are chosen by measurement."""

SETTLE_S: Final = 45.0
"""Longest wait for the gate's processes, which warm up at the same time."""

SHARE_FOR_THE_REST: Final = 0.3
"""Share of the run's time that is left to other parts."""


def rows_in_turns(run: Run) -> None:
    """Make the run's rows ready and time them.

    Rows whose kernels are chosen by measurement are made ready last, one after the other: they need an idle
    device.
    """
    setting, results = run.setting, run.results
    rounds = [setting.workload.round(number) for number in range(setting.rounds)]
    setting.checkpoint()  # made once, before several ask for it
    records = {row.name: Timed(group=row.group, name=row.name, batch_size=row.batch_size) for row in run.rows}
    results.rows = list(records.values())
    told = partial(_told, run, records)
    tuned = [row for row in run.rows if row.is_autotuned]
    by_rule = [row for row in run.rows if not row.is_autotuned]
    run.fleet.make_ready(by_rule, setting.at_once, SHARE_TO_COMPILE * run.seconds, told)
    run.settle(SETTLE_S)
    run.fleet.make_ready(tuned, 1, SHARE_TO_TUNE * run.seconds, told)
    _describe(run, rounds)
    ready = [(run.ready[name], timed) for name, timed in records.items() if name in run.ready]
    run.say(f"{len(ready)} of {len(run.rows)} rows take turns")

    def time_left() -> bool:
        run.keep()
        return run.left > SHARE_FOR_THE_REST * run.seconds

    count = time_in_turns(
        ready, rounds, after_each=run.machine.throttled, time_left=time_left, turn=RemoteRow.turn
    )
    if count < len(rounds):
        results.problems["rounds"] = f"time for {count} of {len(rounds)}"


def _told(
    run: Run, records: dict[str, Timed], row: Row, remote: RemoteRow | None, found: Timed | str
) -> None:
    """Note what became of a row, and write the results."""
    if remote is None or isinstance(found, str):
        records[row.name].problem = run.results.problems[row.name] = str(found)
        run.say(f"  {row.name}: {found}")
    else:
        vars(records[row.name]).update(vars(found))
        run.ready[row.name] = remote
        run.say(f"  {row.name}: ready, warm-up {found.warmup_s:.1f} s")
    run.keep()


def _describe(run: Run, rounds: list[list[Pair]]) -> None:
    """Note the workload, its FLOPs and the device's peak."""
    setting, results, checkpoint = run.setting, run.results, run.setting.checkpoint()
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    counts = [tokenize(tokenizer, pairs, max_length=setting.workload.max_length).counts for pairs in rounds]
    peak = device_peak(setting.device, setting.dtype)
    results.workload = {
        "workload": setting.workload.name, "fingerprint": setting.workload.fingerprint,
        "model": checkpoint.name, "dtype": str(setting.dtype).removeprefix("torch."),
    }  # fmt: skip
    results.peak_flops_per_s, results.peak_source = peak.flops_per_s, peak.source
    results.round_pairs = [len(pairs) for pairs in rounds]
    results.round_tokens = [sum(each) for each in counts]
    results.round_flops = [workload_flops(model, each) for each in counts]
