"""The command line: `xenc profile MODEL` says where the time goes, and what to try next."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import torch

from .cross_encoder import CrossEncoder
from .default_model import DEFAULT_MODEL
from .errors import XencError, first_line
from .presets import DEFAULT_PRESET, resolve_execution
from .profiling.kernels import name_compiled_kernels
from .profiling.measure import profile_model
from .profiling.report import TOP, markdown
from .profiling.texts import prose_pairs, read_pairs

USAGE_ERROR: Final = 2
"""Exit status for wrong arguments or input."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage before it."""
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command by its arguments (None for this process's).

    Returns:
        The exit status: 0, or USAGE_ERROR after one line on stderr.
    """
    parser = _Parser(prog="xenc", description="Cross-encoder inference.")
    _add_profile(parser.add_subparsers(dest="command", required=True))
    options = parser.parse_args(arguments)
    try:
        _profile(options)
    except (XencError, OSError) as error:
        print(f"xenc {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE_ERROR
    return 0


def _add_profile(commands: Any) -> None:
    what = "where the time goes, the share of the hardware's limit, what to try next."
    add = commands.add_parser("profile", help=what).add_argument
    add("model", metavar="MODEL", nargs="?", default=DEFAULT_MODEL,
        help="a model's name, or a folder (default: the small one that comes with xenc)")  # fmt: skip
    add("--execution", default=DEFAULT_PRESET, metavar="PRESET", help="how to score (default: %(default)s)")
    add("--pairs", type=Path, metavar="FILE",
        help="pairs to score, .jsonl or .tsv (default: 64 of Python's own documentation)")  # fmt: skip
    add("--dtype", choices=("float32", "bfloat16", "float16"),
        help="what to compute in (default: the checkpoint's)")  # fmt: skip
    add("--device", help="cpu, cuda, ... (default: the fastest there is)")
    add("--batch-size", type=_positive, default=32, metavar="PAIRS",
        help="of padded and bucketed batches (default: %(default)s)")  # fmt: skip
    add("--repeats", type=_positive, default=5, metavar="N", help="timed passes (default: %(default)s)")
    add("--top", type=_positive, default=TOP, metavar="N", help="kernels to list (default: %(default)s)")
    add("--out", type=Path, default=Path("xenc-profile"), metavar="DIR",
        help="where to leave trace.json and profile.md (default: %(default)s)")  # fmt: skip


def _profile(options: argparse.Namespace) -> None:
    """Profile a model; print the report, and write it to a folder with the trace."""
    _check_device(options.device)
    execution = resolve_execution(options.execution)
    pairs = prose_pairs() if options.pairs is None else read_pairs(options.pairs)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise XencError(f"--out {options.out}: {error.strerror}. Name a folder that can be made.") from error
    dtype = {} if options.dtype is None else {"dtype": getattr(torch, options.dtype)}
    with CrossEncoder(options.model, device=options.device, model_kwargs=dtype, execution=execution) as model:
        if model.device.type == "cpu":
            model._worker.result_on_device(name_compiled_kernels)
        size, repeats, trace = options.batch_size, options.repeats, options.out / "trace.json"
        found = profile_model(model, pairs, batch_size=size, repeats=repeats, trace=trace)
    report, report_file = markdown(found, options.top), options.out / "profile.md"
    report_file.write_text(report, encoding="utf-8")
    print(f"{report}\n{report_file}: this report")
    print(f"{trace}: the traced pass; open it at https://ui.perfetto.dev or chrome://tracing")


def _check_device(device: str | None) -> None:
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        raise XencError(f"--device {device}: {first_line(error)}. Try cpu, or leave it out.") from error


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number
