"""Faults put into xenc's source by hand, one at a time: does the gate call them REGRESSED on this CPU?

    python -m perf_tests.by_hand [NAME ...]         about six minutes for each

Each fault is an edit in a temporary clone of the commit that is checked out. The clone is measured against that
commit, by the suite as it is here. Exits 1 if a fault was not called REGRESSED.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from perf_tests.against import REPOSITORY, paired_request
from xenc.gate.errors import GateError
from xenc.gate.paired.session import measure_paired
from xenc.gate.paired.verdicts import PairedVerdicts
from xenc.gate.verdict import Verdict


class Fault(NamedTuple):
    """An edit of a file: `old` occurs in it once, and becomes `new`."""

    name: str
    file: str
    old: str
    new: str


FAULTS: Final = (
    Fault(
        "copies", "xenc/kernels/packed_attention.py",
        "    operators = library().operators\n",
        "    query, key = query.clone(), key.clone()\n    operators = library().operators\n",
    ),
    Fault(
        "no-token-cache", "xenc/text/tokens.py",
        "[text for text in dict.fromkeys(chain.from_iterable(pairs)) if text not in seen]",
        "list(chain.from_iterable(pairs))",
    ),
    Fault("small-budget", "xenc/layouts/packed.py", 'USUAL_BUDGET: Final = {"cpu": 2048', 'USUAL_BUDGET: Final = {"cpu": 512'),
    Fault("one-more-graph", "xenc/compiling/wrapper.py", "dynamic=execution.dynamic", "dynamic=None"),
    Fault(
        "memory", "xenc/serving/scheduler.py",
        "                logits = self.forward(collated)\n",
        "                held = torch.empty(collated.input_ids.numel(), 100)\n"
        "                logits = self.forward(collated)\n"
        "                del held\n",
    ),
)  # fmt: skip
"""Two more copies in packed attention; each text tokenized as often as it occurs; a quarter of the tokens per
batch; static shapes first, and so a second graph in the warm-up; 400 bytes more per token held in each forward
pass, about 3% of the peak of a full batch."""


def edited(fault: Fault, root: Path) -> str:
    """The text of a fault's file below `root`, with the fault.

    Raises:
        LookupError: the old text does not occur exactly once.
    """
    text = (root / fault.file).read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise LookupError(f"{fault.name}: {fault.old!r} occurs {text.count(fault.old)} times in {fault.file}")
    return text.replace(fault.old, fault.new)


@contextmanager
def broken_clone(fault: Fault) -> Iterator[Path]:
    """A clone of the repository with a fault in its working tree; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="xenc-by-hand-") as folder:
        subprocess.run(["git", "clone", "--quiet", "--shared", str(REPOSITORY), folder], check=True)
        (Path(folder) / fault.file).write_text(edited(fault, Path(folder)), encoding="utf-8")
        yield Path(folder)


def in_words(verdicts: PairedVerdicts) -> Iterator[str]:
    """A line for each configuration: the verdict, and of a regression what is broken, slower and why."""
    for node, judgement in verdicts.configurations.items():
        said = [judgement.reason]
        if judgement.verdict is Verdict.REGRESSED:
            slow = [
                each.reason
                for (name, _), each in verdicts.timed.items()
                if name == node and each.verdict is Verdict.REGRESSED
            ]
            said = [*judgement.exact, *slow, *judgement.causes[:2]]
        yield f"{node.partition('[')[2].rstrip(']')}: {judgement.verdict}. {'; '.join(said)}"


def is_found(fault: Fault) -> bool:
    """Measure a fault and print what the gate says; whether it called a configuration REGRESSED."""
    started = time.monotonic()
    with broken_clone(fault) as clone:
        try:
            verdicts = measure_paired(paired_request("cpu"), "HEAD", clone).verdicts
        except GateError as error:
            print(f"{fault.name}: NOT MEASURED. {error}", flush=True)
            return False
    found = any(each.verdict is Verdict.REGRESSED for each in verdicts.configurations.values())
    took = f"{verdicts.processes} processes, {time.monotonic() - started:.0f} s"
    print(f"{fault.name}: {'REGRESSED' if found else 'NOT SEEN'} ({took})", flush=True)
    print(*(f"  {line}" for line in in_words(verdicts)), sep="\n", flush=True)
    return found


def main(names: Sequence[str]) -> int:
    """See the module."""
    if unknown := set(names) - {fault.name for fault in FAULTS}:
        print(f"no fault is called {', '.join(sorted(unknown))}: {', '.join(each.name for each in FAULTS)}")
        return 1
    found = [is_found(fault) for fault in FAULTS if not names or fault.name in names]
    return int(not all(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
