"""One run, workload by workload; a row that fails leaves the others alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from perf_tests.cpu.answers import Answers
from perf_tests.cpu.contestants import Candidates, Contestants, best_batch_size, try_batch_sizes
from perf_tests.cpu.machine import facts
from perf_tests.cpu.report import markdown
from perf_tests.cpu.results import Found, Results
from perf_tests.cpu.rows import XENC, Row
from perf_tests.cpu.setting import Setting
from perf_tests.peers import Absent
from perf_tests.side_by_side.contestant import Contestant
from perf_tests.side_by_side.steps import Steps
from perf_tests.side_by_side.turns import Timed, time_in_turns
from perf_tests.workloads import Pair, Workload
from xenc import ExecutionError, NotInstalledError
from xenc.errors import first_line
from xenc.gate.measuring.machine import Machine
from xenc.profiling.flops import gemm_seconds_per_token
from xenc.profiling.kernel_names import ATTENTION, by_class
from xenc.profiling.measure import profile_model
from xenc.text.tokens import tokenize

_TURNS = 5


class Run(Steps):
    """Measures rows in a setting; see `Steps`."""

    def __init__(
        self, setting: Setting, rows: Sequence[Row], out: Path, tell: Callable[[str], object] | None = None
    ) -> None:
        results = Results(
            rehearsal=setting.rehearsal, model=setting.checkpoint().name, has_goals=setting.has_goals
        )
        super().__init__(out, results, markdown, partial(facts, Machine("cpu")), tell)
        self.setting, self.rows = setting, rows
        self._contestants = Contestants(setting)

    def workload(self, workload: Workload) -> None:
        """All rows on one workload: made ready, tried in their batch sizes, checked, timed in turns."""
        self.say(workload.name)
        rounds = self.setting.rounds_of(workload)
        found = self.results.workloads[workload.name] = self._described(workload, rounds)
        ready = self._ready(workload, found)
        self.say(f"  {len(ready)} of {len(self.rows)} rows are ready; which batch size suits them")
        trial = self.setting.trial_of(workload)
        trials = try_batch_sizes(ready, trial, self.setting.trials, self.setting.primed_on)
        found.trials = {
            name: {str(size): seconds for size, seconds in each.items()} for name, each in trials.items()
        }
        answers = Answers(self.setting, rounds[0], workload.max_length)
        final = []
        for each in ready:
            size = best_batch_size(each, trials.get(each.row.name))
            contestant, timed = each.by_batch_size[size], found.row(each.row.name)
            timed.batch_size = size
            timed.warmup_s, timed.graphs = contestant.scorer.warmup_s, contestant.scorer.graphs
            check = partial(answers.check, contestant, each.row, timed)
            timed.problem = self.guarded(f"{workload.name}: {each.row.name}", check)
            if timed.problem is None:
                final.append((contestant, timed))
        self.say(f"  {len(final)} rows take turns")
        time_in_turns(
            final, rounds, after_each=lambda: None, time_left=self._kept, primed_on=self.setting.primed_on
        )
        for _, timed in final:
            if timed.problem is not None:
                self.results.problems[f"{workload.name}: {timed.name}"] = timed.problem
        if workload.name == self.setting.looked_into:
            self._look_into(found, [contestant for contestant, _ in final], rounds[0])
        self.keep()

    def _described(self, workload: Workload, rounds: list[list[Pair]]) -> Found:
        tokenizer = AutoTokenizer.from_pretrained(self.setting.one_model())
        most = min(workload.max_length, tokenizer.model_max_length)
        return Found(
            name=workload.name,
            fingerprint=workload.fingerprint,
            round_pairs=[len(pairs) for pairs in rounds],
            round_tokens=[sum(tokenize(tokenizer, pairs, max_length=most).counts) for pairs in rounds],
            rows=[Timed(group=row.group, name=row.name, batch_size=0) for row in self.rows],
        )

    def _ready(self, workload: Workload, found: Found) -> list[Candidates]:
        """The rows that can run."""
        ready: dict[str, Candidates] = {}
        for row in self.rows:
            self.say(f"  {row.name}")

            def make(row: Row = row) -> None:
                try:
                    ready[row.name] = self._contestants.ready(row, workload)
                except (Absent, NotInstalledError, ExecutionError) as error:
                    found.absent[row.name] = first_line(error)

            found.row(row.name).problem = self.guarded(f"{workload.name}: {row.name}", make)
            self.keep()
        return [ready[row.name] for row in self.rows if row.name in ready]

    def _kept(self) -> bool:
        self.keep()
        return True

    def _look_into(self, found: Found, contestants: Sequence[Contestant], pairs: list[Pair]) -> None:
        """Shares of the matrix products and of attention in the time of xenc's rows."""
        for contestant in contestants:
            row, timed = contestant.row, found.timed(contestant.row.name)
            if contestant.model is None or timed is None or not isinstance(row, Row) or row.int8:
                continue
            self.say(f"  where the time of {row.name} goes")
            contestant.take_over()
            found.products_share[row.name] = self._products_share(contestant, row, pairs)
            profile = profile_model(contestant.model, pairs, batch_size=timed.batch_size, repeats=1).traced
            _, seconds = by_class(profile.kernels).get(ATTENTION, (0, 0.0))
            found.attention_share[row.name] = seconds / profile.wall_s

    def _products_share(self, contestant: Contestant, row: Row, pairs: list[Pair]) -> float:
        """The products' share of the seconds, a median of passes in turns: the machine's speed varies."""
        model = AutoModelForSequenceClassification.from_pretrained(self.setting.one_model(), dtype=row.dtype)
        shares = []
        for _ in range(_TURNS):
            before = gemm_seconds_per_token(model, repeats=1)
            started = time.perf_counter()
            contestant.logits(pairs)
            taken = time.perf_counter() - started
            products = (before + gemm_seconds_per_token(model, repeats=1)) / 2
            shares.append(products * sum(contestant.model.last_report.token_counts) / taken)
        return statistics.median(shares)


def complete(results: Results) -> bool:
    """Whether nothing failed, and every row of xenc that was timed stands."""
    ours = [
        row for found in results.workloads.values() for row in found.rows if row.group == XENC and row.seconds
    ]
    return not results.problems and all(row.stands for row in ours)
