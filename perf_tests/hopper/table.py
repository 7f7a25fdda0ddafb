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

SHARE_TO_PREPARE: Final = 0.4
"""Share of the run's time after which a row is given up that is not ready."""

SETTLE_S: Final = 60.0
"""Longest wait for the gate's processes, which warm up at the same time."""

SHARE_FOR_THE_REST: Final = 0.55
"""Share of the run's time that is left to other parts."""


def rows_in_turns(run: Run) -> None:
    """Make the run's rows ready and time them.

    Where kernels are chosen by measurement, the compiler takes the least time of each: that others warm up
    meanwhile changes it little.
    """
    setting, results = run.setting, run.results
    rounds = [setting.workload.round(number) for number in range(setting.rounds)]
    setting.checkpoint()  # made once, before several ask for it
    records = {row.name: Timed(group=row.group, name=row.name, batch_size=row.batch_size) for row in run.rows}
    results.rows = list(records.values())
    told = partial(_told, run, records)
    run.fleet.make_ready(run.rows, setting.at_once, SHARE_TO_PREPARE * run.seconds, told)
    run.settle(SETTLE_S)
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
        run.ready.pop(row.name, None)
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
