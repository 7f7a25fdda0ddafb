"""python -m perf_tests.hopper: everything on one GPU within nine minutes, and one table.

What matters most comes first; what there is no time for, or what fails, stands in the report as such.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from perf_tests.hopper.parts import PARTS, Run
from perf_tests.hopper.report import markdown
from perf_tests.hopper.setting import ON_GPU, REHEARSAL

SECONDS = 530.0


def main(arguments: list[str]) -> int:
    """Measure; 1 if any part failed or was left out."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.hopper", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("hopper-report"), help="folder of the report")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="when to stop beginning new things")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rehearse", action="store_true", help="a small model on the CPU, to see it run")
    chosen = parser.parse_args(arguments)
    if not chosen.rehearse and not torch.cuda.is_available():
        parser.error("no CUDA device: --rehearse runs the same on a small model")
    run = Run(REHEARSAL if chosen.rehearse else ON_GPU, chosen.out, chosen.seconds)
    for name in chosen.parts:
        run.part(name)
    print(markdown(run.results))
    return 0 if run.results.complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
