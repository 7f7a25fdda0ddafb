"""`xenc profile`: where the time goes, and what to try next."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from ..default_model import DEFAULT_MODEL
from ..presets import DEFAULT_PRESET
from ..profiling.kernels import name_compiled_kernels
from ..profiling.measure import profile_model
from ..profiling.report import TOP, markdown
from . import options as ask

WHAT: Final = "where the time goes, the share of the hardware's limit, what to try next"
EXAMPLES: Final = """\
examples:
  xenc profile
  xenc profile BAAI/bge-reranker-base --pairs pairs.jsonl --dtype bfloat16
  xenc profile --execution bucketed --out elsewhere
"""


PROSE: Final = 64
"""Built-in pairs that are scored if no file is given."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", default=DEFAULT_MODEL,
        help="a model's name, or a folder (default: the small one that comes with xenc)")  # fmt: skip
    add("--execution", default=DEFAULT_PRESET, metavar="PRESET", help="how to score (default: %(default)s)")
    add("--pairs", metavar="FILE",
        help=f"pairs to score, as of xenc score (default: {PROSE} of Python's documentation)")  # fmt: skip
    ask.add_columns(add)
    ask.add_computing(add)
    add("--batch-size", type=ask.positive, default=32, metavar="PAIRS",
        help="of padded and bucketed batches (default: %(default)s)")  # fmt: skip
    add("--repeats", type=ask.positive, default=5, metavar="N", help="timed passes (default: %(default)s)")
    add("--top", type=ask.positive, default=TOP, metavar="N", help="kernels to list (default: %(default)s)")
    add("--out", type=Path, default=Path("xenc-profile"), metavar="DIR",
        help="where to leave trace.json and profile.md (default: %(default)s)")  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Profile a model; print the report, and write it to a folder with the trace.

    Raises:
        XencError: options, a file or a model that cannot be used. No folder is left then.
    """
    pairs = ask.pairs_of(options, PROSE)
    out = ask.folder(options.out)
    with ask.load(options, options.execution) as model:
        _ = model.pipeline  # raises before anything is written
        if model.device.type == "cpu":
            model._worker.result_on_device(name_compiled_kernels)
        ask.make(out)
        size, repeats, trace = options.batch_size, options.repeats, out / "trace.json"
        found = profile_model(model, pairs, batch_size=size, repeats=repeats, trace=trace)
    report, report_file = markdown(found, options.top), out / "profile.md"
    report_file.write_text(report, encoding="utf-8")
    print(f"{report}\n{report_file}: this report")
    print(f"{trace}: the traced pass; open it at https://ui.perfetto.dev or chrome://tracing")
