"""`xenc bench`: your model and your pairs through xenc and through sentence-transformers, side by side."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..default_model import DEFAULT_MODEL
from ..errors import XencError
from ..models.precision import fastest_dtype
from ..presets import PRESETS
from ..profiling.bench_report import HEADER, Bench, as_json, below, cells, draw, markdown
from ..profiling.contestant import BATCH_SIZES, Pair, in_one_line, logits_of
from ..profiling.machine import described, memory_bytes
from ..profiling.rows import SENTENCE_TRANSFORMERS, Row, presets_for, rows_of, said_of_openvino
from ..profiling.side_by_side import Rounds, time_rows
from . import options as ask

WHAT: Final = "your model and pairs through xenc and sentence-transformers: what is fastest here"
EXAMPLES: Final = """\
examples:
  xenc bench
  xenc bench BAAI/bge-reranker-base --pairs pairs.jsonl
  xenc bench cross-encoder/ms-marco-MiniLM-L6-v2 --pairs pairs.csv --presets packed,packed-int8 --seconds 120

All models are loaded and warmed up before anything is timed; then the rows take turns. It takes minutes,
most of which go into compiling the first time.
"""

LIMIT: Final = 2048
PROSE: Final = 256
"""Built-in pairs that are timed if no file is given."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", default=DEFAULT_MODEL,
        help="a model's name, or a folder (default: the small one that comes with xenc)")  # fmt: skip
    add("--pairs", metavar="FILE",
        help=f"pairs to score, as of xenc score (default: {PROSE} of Python's documentation)")  # fmt: skip
    ask.add_columns(add)
    add("--limit", type=ask.positive, default=LIMIT, metavar="PAIRS",
        help="time the first so many pairs (default: %(default)s)")  # fmt: skip
    add("--presets", type=ask.names, metavar="A,B",
        help="presets of xenc to time (default: those that make sense on this machine)")  # fmt: skip
    ask.add_computing(
        add, dtype="time this dtype alone (default: the checkpoint's, and the device's fastest)"
    )
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument("--rounds", type=ask.positive, default=5, metavar="N",
        help="timed passes of each row (default: %(default)s)")  # fmt: skip
    how_long.add_argument("--seconds", type=ask.positive, metavar="S",
        help="time rounds until so many seconds have passed, without warm-up")  # fmt: skip
    ask.add_trust(add)
    add("--out", type=Path, default=Path("xenc-bench"), metavar="DIR",
        help="where to leave bench.md, bench.json and bench.png (default: %(default)s)")  # fmt: skip
    add("--quiet", action="store_true", help="do not say how far it is")


def run(options: argparse.Namespace) -> None:
    """Time the rows; print a table and what to use, and write them to a folder.

    Raises:
        XencError: options, a file or a model that cannot be used; no folder is left then. Or every row
            failed, which the folder tells too.
    """
    for name in options.presets or ():
        if name not in PRESETS:
            raise XencError(f"--presets {name}: is none of {', '.join(PRESETS)}.")
    given = ask.pairs_of(options, PROSE)
    out = ask.folder(options.out)
    bench = _measured(options, given[: options.limit], len(given))
    (out / "bench.md").write_text(markdown(bench), encoding="utf-8")
    (out / "bench.json").write_text(json.dumps(as_json(bench), indent=1) + "\n", encoding="utf-8")
    _print(bench)
    drawn = draw(bench, out / "bench.png")
    print(f"\n{out}: bench.md, bench.json" + (", bench.png" if drawn else ""))
    if not any(timed.seconds for timed in bench.found.rows):
        raise XencError(f"no row could be timed. {bench.found.rows[0].row}: {bench.found.rows[0].problem}")
    if not drawn:
        print("no picture: pip install matplotlib")


def _measured(options: argparse.Namespace, pairs: Sequence[Pair], given: int) -> Bench:
    with ask.load(options, "packed-eager", options.dtype) as model:  # raises for what cannot be loaded
        device, weights = model.device, list(model.parameters())
        own_dtype = weights[0].dtype
        presets, left_out = presets_for(model)
    ask.make(options.out)
    dtypes = [own_dtype] if options.dtype else list(dict.fromkeys((own_dtype, fastest_dtype(device))))
    if options.presets:
        presets, left_out = options.presets, {}
    if openvino := said_of_openvino(device.type):
        left_out["OpenVINO"] = openvino
    rows, numbers = rows_of(presets, dtypes), sum(weight.numel() for weight in weights)
    del model, weights
    together = sum(row.dtype.itemsize for row in rows) * numbers
    in_turns = together <= memory_bytes(str(device)) / 2

    def load(row: Row) -> Any:
        if row.is_xenc:
            return ask.load(options, row.system, row.precision)
        return ask.load_plain(options, row.precision)

    tell = (lambda _: None) if options.quiet else _tell
    exact, notes = _exact(load, pairs)
    found = time_rows(
        rows, load, pairs, exact, Rounds(options.rounds, options.seconds), in_turns=in_turns, tell=tell
    )
    return Bench(
        model=str(options.model), described=described(device), pairs=len(pairs), pairs_given=given,
        plain_dtype=None if options.dtype else rows[0].precision, found=found, left_out=left_out, notes=notes,
        loading=ask.said(options),
    )  # fmt: skip


def _exact(load: Any, pairs: Sequence[Pair]) -> tuple[np.ndarray | None, list[str]]:
    """Logits by sentence-transformers in float32; None if it fails, and a line that says why."""
    try:
        model = load(Row(SENTENCE_TRANSFORMERS, torch.float32))
        return logits_of(model, pairs, BATCH_SIZES[0]), []
    except Exception as error:
        return None, [f"Errors are unknown: sentence-transformers in float32 failed ({in_one_line(error)})."]


def _print(bench: Bench) -> None:
    width = max(shutil.get_terminal_size((120, 24)).columns, 100)
    console = Console(width=width, file=sys.stdout, highlight=False)
    table = Table(title=Text(bench.model), title_justify="left", title_style="bold", pad_edge=False, box=None)
    for place, name in enumerate(HEADER):
        table.add_column(Text(name), justify="left" if place < 2 else "right", overflow="fold")
    for timed in bench.found.rows:
        table.add_row(*map(Text, cells(bench, timed)))
    console.print(Text(bench.described))
    console.print(table)
    console.print()
    for line in below(bench):
        console.print(Text(line))
    console.print()
    console.print(Text(bench.advice, style="bold"))
    if bench.code:
        print(f"\n{bench.code}")


def _tell(what: str) -> None:
    print(f"xenc: {what}", file=sys.stderr, flush=True)
