"""`xenc doctor`: what this machine has for xenc, what will be slow and why, and what to install."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..profiling.checkup import MINIMUM, Checkup, checkup
from ..profiling.machine import INSTRUCTIONS
from ..profiling.remedies import TO_MEND, Ailment, ailments

WHAT: Final = "what this machine has for xenc, what will be slow and why, what to install"
EXAMPLES: Final = """\
examples:
  xenc doctor
  xenc doctor --json

It builds the C++ kernels if they are not built, and compiles a small function: some seconds, or a minute the
first time.

exit status: 0, or 1 if there is a finding that is "broken" (a package is missing or too old) or "slow"
(everything is slow, and what is to be done about it is within reach). "note" leaves it 0.
"""

_MENDED: Final = 0
_TO_BE_MENDED: Final = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Look at everything and print it.

    Returns:
        The exit status.
    """
    found = checkup()
    ill = ailments(found)
    status = _TO_BE_MENDED if any(each.level in TO_MEND for each in ill) else _MENDED
    if options.json:
        said = {**asdict(found), "findings": [each._asdict() for each in ill], "status": status}
        print(json.dumps(said, indent=1))
    else:
        _print(found, ill, status)
    return status


def _print(found: Checkup, ill: Sequence[Ailment], status: int) -> None:
    console = Console(
        width=max(shutil.get_terminal_size((110, 24)).columns, 80), file=sys.stdout, highlight=False
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(found).items():
        table.add_row(name, Text(value))
    console.print(table)
    console.print()
    for each in ill:
        console.print(Text(f"{each.level}: {each.says}. -> {each.remedy}", style=_STYLES[each.level]))
    end = "Mend what is broken or slow, and run xenc doctor again." if status else "Nothing has to be mended."
    console.print(Text(end, style="bold"))


_STYLES: Final = {"broken": "red", "slow": "yellow", "note": ""}


def _lines(found: Checkup) -> dict[str, str]:
    """What there is, by name."""
    name, path, says = found.compiler
    made = "built and loaded before" if found.were_built else f"built now, in {found.kernels_s:.1f} s"
    kernels = f"not there: {found.kernels_missing}" if found.kernels_missing else made
    compiles = found.compile_fails or f"works: a small function in {found.compile_s:.1f} s"
    needed = {package: f" (at least {minimum})" for package, minimum in MINIMUM.items()}
    cuda, triton = found.versions["cuda"], found.versions["triton"]
    return {
        "device": f"{found.device}, fastest in {found.fastest_dtype}",
        "GPUs": ", ".join(found.gpus) or "none",
        "processor": found.processor,
        "instructions": ", ".join(
            f"{each} {'yes' if each in found.instructions else 'no'}" for each in INSTRUCTIONS
        ) + (f"; {found.hidden}" if found.hidden else ""),
        "cores": f"{found.cores}, and {found.threads} thread(s) of torch",
        "memory": f"{found.memory_bytes / (1 << 30):.1f} GiB",
        **{
            package: f"{found.versions[package] or 'absent'}{needed.get(package, '')}"
            for package in ("python", *MINIMUM)
        },
        "CUDA": f"{cuda or 'not in this torch'}; Triton {triton or 'absent'}",
        "C++ compiler": f"{path} ({says})" if path else f"{name} is not there",
        "ninja": found.ninja or "absent",
        "C++ kernels": kernels,
        "kept in": found.kernels_file,
        "torch.compile": compiles,
        "its cache": found.inductor_cache,
        "models": found.hub_cache + (", HF_HUB_OFFLINE is set" if found.offline else ""),
        "optional": ", ".join(f"{each} {have or 'absent'}" for each, have in found.optional.items()),
    }  # fmt: skip
