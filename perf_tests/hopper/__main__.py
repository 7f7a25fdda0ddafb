"""python -m perf_tests.hopper: what xenc claims about a GPU, measured on one, in stages of minutes.

What there is no time for, or what fails, stands in the report as such.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

import torch

from perf_tests.hopper.parts import PARTS, run_part
from perf_tests.hopper.report import markdown
from perf_tests.hopper.rows import chosen_rows
from perf_tests.hopper.run import Run
from perf_tests.hopper.setting import ON_GPU, REHEARSAL
from perf_tests.hopper.stages import STAGES


def main(arguments: list[str]) -> int:
    """Measure; 1 if any part failed or was left out."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.hopper", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("hopper-report"), help="a folder per stage is in it")
    parser.add_argument("--stage", nargs="+", choices=list(STAGES), default=["first", "all"])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="of the stage; all if left out")
    parser.add_argument("--seconds", type=float, help="when a stage stops beginning new things")
    parser.add_argument("--rehearse", action="store_true", help="small models on the CPU, to see it run")
    chosen = parser.parse_args(arguments)
    if not chosen.rehearse and not torch.cuda.is_available():
        parser.error("no CUDA device: --rehearse runs the same on small models")
    setting, complete = REHEARSAL if chosen.rehearse else ON_GPU, True
    for name in chosen.stage:
        stage = STAGES[name]
        seconds = chosen.seconds or stage.seconds * setting.patience
        run = Run(setting, chosen_rows(setting, stage.rows), chosen.out / name, seconds)
        with closing(run):
            for part in chosen.parts or stage.parts:
                run_part(run, part)
        print(markdown(run.results), flush=True)
        complete &= run.results.complete
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
