"""Faults put into xenc's source by hand, one at a time: does the gate call them REGRESSED on this CPU?

    python -m perf_tests.by_hand [NAME ...]             about ten minutes for each: whole runs
    python -m perf_tests.by_hand --exact [NAME ...]     two to five: by what one process counts, without times

Each fault is an edit in a temporary clone of the commit that is checked out. The clone is measured against
that commit, by the suite as it is here. Exits 1 if a fault was not called REGRESSED.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from correctness_tests.mutants import apply
from correctness_tests.mutations import Mutant, read
from perf_tests.against import REPOSITORY, paired_request
from perf_tests.counts import counted, lines_of, regressed
from xenc.gate.errors import GateError
from xenc.gate.paired.session import measure_paired
from xenc.gate.paired.verdicts import PairedVerdicts

FAULTS: Final = tuple(read((
    ("copies", "packed_attention",
     "    operators = library().operators\n",
     "    query, key = query.clone(), key.clone()\n    operators = library().operators\n"),
    ("no-token-cache", "PairReader._texts",
     "[text for text in dict.fromkeys(chain.from_iterable(pairs)) if text not in seen]",
     "list(chain.from_iterable(pairs))"),
    ("small-budget", "USUAL_BUDGET", '"cpu": 2048', '"cpu": 512'),
    ("one-more-graph", "CompiledForward.__init__", "dynamic=execution.dynamic", "dynamic=None"),
    ("memory", "Scheduler._logits",
     "                return self.forward(collated)\n",
     "                held = torch.empty(collated.input_ids.numel(), 70)\n"
     "                logits = self.forward(collated)\n"
     "                del held\n"
     "                return logits\n"),
)))  # fmt: skip
"""Two more copies in packed attention; each text tokenized as often as it occurs; a quarter of the tokens in
a full batch; static shapes first, and so a second graph in the warm-up; 280 bytes more held for each token of
a batch, about 3% of the peak of a full one."""


@contextmanager
def broken_clone(fault: Mutant) -> Iterator[Path]:
    """A clone of the repository with a fault in its working tree; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="xenc-by-hand-") as folder:
        subprocess.run(["git", "clone", "--quiet", "--shared", str(REPOSITORY), folder], check=True)
        apply(fault, Path(folder))
        yield Path(folder)


def judged(clone: Path, *, exact: bool) -> PairedVerdicts:
    """The gate's verdicts on a clone's working tree; if `exact`, by what one short process counts."""
    return counted(clone, "HEAD") if exact else measure_paired(paired_request("cpu"), "HEAD", clone).verdicts


def is_found(fault: Mutant, *, exact: bool) -> bool:
    """Measure a fault and print what the gate says; whether it called a configuration REGRESSED."""
    started = time.monotonic()
    try:
        with broken_clone(fault) as clone:
            verdicts = judged(clone, exact=exact)
    except GateError as error:
        print(f"{fault.name}: NOT MEASURED. {error}", flush=True)
        return False
    found = regressed(verdicts)
    took = f"processes: {verdicts.processes}, {time.monotonic() - started:.0f} s"
    print(f"{fault.name}: {'REGRESSED' if found else 'NOT SEEN'} ({took})")
    for line in lines_of(verdicts, exact=exact):
        print(f"  {line}", flush=True)
    return found


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.by_hand")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(each.name for each in FAULTS))
    parser.add_argument("--exact", action="store_true", help="one process for each fault, without times")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - {each.name for each in FAULTS}:
        parser.error(f"no fault is called {', '.join(sorted(unknown))}")
    wanted = [fault for fault in FAULTS if not chosen.names or fault.name in chosen.names]
    return int(sum(not is_found(fault, exact=chosen.exact) for fault in wanted) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
