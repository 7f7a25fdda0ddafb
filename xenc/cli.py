"""The command `xenc`: `xenc profile MODEL`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from .cross_encoder import CrossEncoder
from .default_model import DEFAULT_MODEL
from .errors import XencError
from .presets import DEFAULT_PRESET, resolve_execution
from .profiling.kernels import name_compiled_kernels
from .profiling.measure import profile_model
from .profiling.report import TOP, markdown
from .profiling.texts import prose_pairs, read_pairs

DTYPES: Final = ("float32", "bfloat16", "float16")

USAGE_ERROR: Final = 2
"""Exit status for what was asked wrongly; argparse uses it too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        profile(options)
    except (XencError, OSError) as error:
        print(f"xenc {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE_ERROR
    return 0


def profile(options: argparse.Namespace) -> None:
    """Profile a model, print the report, and leave it in a folder with the trace.

    Raises:
        XencError: a model, preset, or file of pairs that cannot be used.
        OSError: a folder that cannot be written.
    """
    execution = resolve_execution(options.execution)
    pairs = prose_pairs() if options.pairs is None else read_pairs(options.pairs)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    dtype = {} if options.dtype is None else {"dtype": getattr(torch, options.dtype)}
    with CrossEncoder(options.model, device=options.device, model_kwargs=dtype, execution=execution) as model:
        if model.device.type == "cpu":
            model._worker.on_device(name_compiled_kernels).result()
        measured = profile_model(
            model, pairs, batch_size=options.batch_size, repeats=options.repeats, trace=folder / "trace.json"
        )
    report = markdown(measured, options.top)
    (folder / "profile.md").write_text(report, encoding="utf-8")
    print(report)
    print(f"{folder / 'profile.md'}: this report")
    print(f"{folder / 'trace.json'}: the traced pass; open it at https://ui.perfetto.dev or chrome://tracing")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xenc", description="Cross-encoder inference.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "profile",
        help="where the time goes, how near the hardware's limit is, what to try next",
    )
    command.add_argument(
        "model", metavar="MODEL", nargs="?", default=DEFAULT_MODEL,
        help="a model's name, or a folder (default: the small one that comes with xenc)",
    )  # fmt: skip
    command.add_argument(
        "--execution", default=DEFAULT_PRESET, metavar="PRESET", help="how to score (default: %(default)s)"
    )
    command.add_argument(
        "--pairs", type=Path, metavar="FILE",
        help="pairs to score, .jsonl or .tsv (default: 64 of Python's own documentation)",
    )  # fmt: skip
    command.add_argument("--dtype", choices=DTYPES, help="what to compute in (default: the checkpoint's)")
    command.add_argument("--device", help="cpu, cuda, ... (default: the fastest there is)")
    command.add_argument(
        "--batch-size", type=_positive, default=32, metavar="PAIRS",
        help="of padded and bucketed batches (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--repeats", type=_positive, default=5, metavar="N", help="timed passes (default: %(default)s)"
    )
    command.add_argument(
        "--top", type=_positive, default=TOP, metavar="N", help="kernels to list (default: %(default)s)"
    )
    command.add_argument(
        "--out", type=Path, default=Path("xenc-profile"), metavar="DIR",
        help="where to leave trace.json and profile.md (default: %(default)s)",
    )  # fmt: skip
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number
