"""python -m perf_tests.cpu: every row on one processor, in turns, and what became of each goal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from perf_tests.cpu.report import markdown
from perf_tests.cpu.rows import table_rows
from perf_tests.cpu.run import Run, complete
from perf_tests.cpu.setting import MODELS, WORKLOADS, Setting, chosen


def main(arguments: list[str]) -> int:
    """Measure; 1 if anything failed. A row that is absent is no failure."""
    names = [row.name for row in table_rows()]
    parser = argparse.ArgumentParser(prog="python -m perf_tests.cpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("cpu-report"), help="folder of the report")
    parser.add_argument(
        "--rows", nargs="+", default=[""], metavar="PART", help=f"rows with one of these in their names, of: "
        f"{', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--model", choices=list(MODELS), default="minilm")
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=_positive, default=7, help="each row is timed once in each")
    parser.add_argument("--trials", type=_positive, default=2, help="passes in each batch size before")
    parser.add_argument("--pairs", type=_positive, help="of a round, instead of each workload's own number")
    given = parser.parse_args(arguments)
    rows = [row for row in table_rows() if any(part in row.name for part in given.rows)]
    if not rows:
        parser.error(f"--rows {' '.join(given.rows)}: no such row. There are: {', '.join(names)}")
    setting = Setting(
        **MODELS[given.model],
        workloads=chosen(given.workloads, given.pairs),
        rounds=given.rounds,
        trials=given.trials,
    )
    run = Run(setting, rows, given.out)
    for workload in setting.workloads:
        run.workload(workload)
    print(markdown(run.results))
    return 0 if complete(run.results) else 1


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
