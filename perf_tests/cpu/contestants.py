"""Rows made ready, and peers in the batch size that suits them on a workload."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perf_tests.cpu.rows import Row, check_native
from perf_tests.cpu.setting import Setting
from perf_tests.scorers import Scorer
from perf_tests.side_by_side.contestant import Contestant, warmed_up
from perf_tests.workloads import Pair, Workload
from xenc import CrossEncoder
from xenc.profiling.side_by_side import nothing_collected

Trials = dict[int, list[float]]
"""Seconds of each trial by batch size."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """A row in each of its batch sizes; xenc's has one, since it lays out batches by tokens."""

    row: Row
    by_batch_size: Mapping[int, Contestant]


class Contestants:
    """Makes rows ready, each once, or once per workload where a row requires it."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._made: dict[tuple[str, str | None], Candidates] = {}

    def ready(self, row: Row, workload: Workload) -> Candidates:
        """A row's candidates, warmed up. Raises Absent, NotInstalledError or ExecutionError."""
        key = row.name, workload.name if row.per_workload else None
        if key not in self._made:
            made = self._ours(row, workload) if row.peer is None else self._peer(row, workload)
            self._made[key] = Candidates(row=row, by_batch_size=made)
        return self._made[key]

    def _peer(self, row: Row, workload: Workload) -> dict[int, Contestant]:
        started = time.perf_counter()
        peer: Any = row.peer(self._setting, workload)
        seconds = time.perf_counter() - started
        return {
            size: Contestant(row, Scorer(peer=peer.at(size), batch_size=size, warmup_s=seconds), "cpu")
            for size in self._setting.batch_sizes
        }

    def _ours(self, row: Row, workload: Workload) -> dict[int, Contestant]:
        check_native(self._setting, row.dtype)
        model = CrossEncoder(
            str(self._setting.checkpoint()), device="cpu", max_length=workload.max_length,
            model_kwargs={"dtype": row.dtype}, execution=row.execution,
        )  # fmt: skip
        return {workload.batch_size: warmed_up(row, model, workload.batch_size, "cpu")}


def try_batch_sizes(
    candidates: Sequence[Candidates], pairs: Sequence[Pair], trials: int, primed_on: int
) -> dict[str, Trials]:
    """Time rows with several batch sizes, in turns; by row. A batch size that fails is left out."""
    choosing = [each for each in candidates if len(each.by_batch_size) > 1]
    found: dict[str, Trials] = {each.row.name: {} for each in choosing}
    for _ in range(trials):
        for each in choosing:
            for size, contestant in each.by_batch_size.items():
                seconds = _seconds(contestant, pairs, primed_on)
                if seconds is not None:
                    found[each.row.name].setdefault(size, []).append(seconds)
    return found


def _seconds(contestant: Contestant, pairs: Sequence[Pair], primed_on: int) -> float | None:
    try:
        with nothing_collected():
            contestant.logits(pairs[:primed_on])
            started = time.perf_counter()
            contestant.logits(pairs)
            return time.perf_counter() - started
    except Exception:  # if no other batch size works, it fails again and is noted
        return None


def best_batch_size(candidates: Candidates, trials: Trials | None) -> int:
    """The batch size of the fastest trial; the first where there were none."""
    timed = {size: min(seconds) for size, seconds in (trials or {}).items()}
    return min(timed, key=timed.__getitem__) if timed else next(iter(candidates.by_batch_size))
