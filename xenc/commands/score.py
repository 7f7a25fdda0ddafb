"""`xenc score`: a file of pairs in, the same records with their scores out."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from ..errors import PairError
from ..files import (
    FORMATS,
    STREAM,
    PairsFile,
    ScoredChunk,
    ScoresFile,
    Stream,
    Unfinished,
    encoded_apart,
    format_of,
    scored,
    taken,
)
from ..presets import DEFAULT_PRESET, PRESETS
from . import options as ask
from .progress import progress
from .where import add_where, check_where, scoring

WHAT: Final = "score the pairs of a file: JSON Lines, CSV, TSV or Parquet"
EXAMPLES: Final = """\
examples:
  xenc score pairs.jsonl -o scores.jsonl --model BAAI/bge-reranker-base
  xenc score pairs.csv -o scores.parquet --query-column question --document-column passage
  xenc score pairs.parquet -o scores.parquet --keep id --dtype fastest --resume
  zcat pairs.jsonl.gz | xenc score - > scores.jsonl
  xenc score pairs.parquet -o scores.parquet --ray auto --resume

A record of pairs.jsonl is {"query": "...", "document": "..."}, with any other keys, or ["query", "document"].
Records are written in their order with a score each. Memory does not grow with the file. OUT appears when it
is whole; until then OUT.partial and OUT.progress hold what is done, and --resume goes on there, even after a
kill.
"""

IS_THERE: Final = (
    "is there, and no run of it is unfinished: nothing is done. What it was made from is not looked at; "
    "--overwrite scores anew"
)

Output = Unfinished | Stream

EAGER_BYTES: Final = 32 << 20
"""Of input. Compiling takes longer than it saves on less."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("pairs", metavar="PAIRS", help="a file, or - for standard input")
    add("-o", "--out", default=STREAM, metavar="OUT", help="a file, or - for standard output (the default)")
    ask.add_model(add)
    add("--execution", metavar="PRESET", choices=list(PRESETS),
        help="how to score (default: packed-eager for less than 32 MiB, for which compiling is not worth it, "
             f"otherwise {DEFAULT_PRESET})")  # fmt: skip
    ask.add_computing(add)
    ask.add_long_documents(add)
    add_where(add)
    ask.add_columns(add)
    add("--score-column", default="score", metavar="NAME", help="of the output (default: %(default)s)")
    add(
        "--out-format", choices=FORMATS, help="of the output (default: by its suffix; JSON Lines of a stream)"
    )
    add("--keep", type=ask.names, metavar="A,B", help="columns to write beside the scores (default: all)")
    add(
        "--resume",
        action="store_true",
        help="go on where a run that was killed ended; begin if there is none",
    )
    add("--overwrite", action="store_true", help="begin anew, whatever is there")
    add("--skip-bad", type=Path, metavar="FILE",
        help="write what cannot be scored to FILE and go on (default: stop at the first)")  # fmt: skip
    add(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="keep compiled code there for the next run with this model",
    )
    add("--quiet", action="store_true", help="do not say how far it is")


def run(options: argparse.Namespace) -> None:
    """Score a file.

    Raises:
        XencError: options, a record or a model that cannot be used.
    """
    _check(options)
    format = format_of(options.out, options.out_format, "--out-format")
    source = PairsFile(options.pairs, ask.columns_of(options), options.format)
    _check_columns(options, source)
    writer = ScoresFile(format, options.score_column, options.keep, header=not options.no_header)
    with ExitStack() as stack:
        stack.callback(source.close)
        output = _output(options, stack, _settings(options, format))
        if output.progress.complete:
            output.finish(writer.finish)
            print(f"xenc: {options.out} {IS_THERE}", file=sys.stderr)  # also if it is to be quiet
            return
        if isinstance(output, Unfinished):
            writer.go_on(output.progress.columns, output.written)
        _say(options, _score(options, source, writer, output))


def _score(options: argparse.Namespace, source: PairsFile, writer: ScoresFile, output: Output) -> str:
    """Score from where the output stands to the end; says what was done."""
    before = output.progress.scored
    with scoring(options, _execution(options)) as where:
        began = time.monotonic()
        try:
            with progress(source.size, quiet=options.quiet) as meter:
                for part in scored(where, source.chunks(output.place, options.keep)):
                    encoded, written = encoded_apart(writer.encode, part)
                    _refuse_bad(options, written)
                    output.add(encoded, written, writer.columns)
                    meter.reached(output.progress.scored, written.end.offset)
        except KeyboardInterrupt:
            if isinstance(output, Unfinished):
                kept = output.progress.scored
                _say(options, f"{kept:,} scored records are kept: the same command with --resume goes on")
            raise
    output.finish(writer.finish)
    done = output.progress
    count, seconds = done.scored - before, time.monotonic() - began
    earlier = f", {before:,} before" if before else ""
    bad = f"; {done.bad:,} skipped, see {options.skip_bad}" if done.bad else ""
    pairs = "1 pair" if count == 1 else f"{count:,} pairs"
    return f"{pairs} in {seconds:.1f} s ({count / max(seconds, 1e-9):,.0f} pairs/s){earlier}{bad}"


def _check_columns(options: argparse.Namespace, source: PairsFile) -> None:
    """Refuse columns that are not there, or there twice."""
    columns = ask.columns_of(options)
    known = source.columns or (columns.query, columns.document)
    if options.score_column in (known if options.keep is None else options.keep):
        raise PairError(taken(options.score_column))
    for name in options.keep or ():
        if source.columns is not None and name not in source.columns:
            raise PairError(f"--keep {name}: {options.pairs} has the columns {', '.join(source.columns)}.")


def _check(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    check_where(options)
    out, bad = options.out, options.skip_bad
    if options.resume and (out == STREAM or options.overwrite):
        raise PairError("--resume goes on with a file: give -o OUT, and not --overwrite with it.")
    if out == STREAM:
        return
    for path in (Path(out), *([bad] if bad else [])):
        if not path.parent.is_dir():
            raise PairError(f"{path}: there is no folder {path.parent}: make it first.")
        if path.is_dir():
            raise PairError(f"{path}: is a folder: name a file.")
        if options.pairs != STREAM and path.resolve() == Path(options.pairs).resolve():
            raise PairError(f"{path}: is the input: name another file to write.")
    if bad and bad.resolve() == Path(out).resolve():
        raise PairError(f"--skip-bad {bad}: is the output too: name another file.")


def _output(options: argparse.Namespace, stack: ExitStack, settings: dict[str, Any]) -> Output:
    """Where the records go: standard output, or a file that is begun or gone on with."""
    if options.out == STREAM:
        skipped = stack.enter_context(options.skip_bad.open("wb")) if options.skip_bad else None
        return Stream(sys.stdout.buffer, skipped)
    out = Path(options.out)
    output = Unfinished(out, settings, options.skip_bad)
    if options.overwrite:
        return stack.enter_context(output.begin())
    if output.found and not options.resume:
        raise PairError(
            f"{out}: a run was not finished: go on with --resume, or begin anew with --overwrite."
        )
    if out.exists() and not output.found:
        if options.resume:
            return Stream.ended()
        raise PairError(f"{out}: is there already: name another file, or --overwrite.")
    return stack.enter_context(output.go_on())


def _settings(options: argparse.Namespace, format: str) -> dict[str, Any]:
    """What decides the scores and the form of the output."""
    dtype = None if options.dtype is None else str(ask.dtype_of(options.dtype, options.device))
    columns = ask.columns_of(options)
    return {
        "--model": str(options.model), "--revision": options.revision, "--dtype": dtype,
        "--execution": _execution(options), "--max-length": options.max_length,
        "--long-documents": options.long_documents, "--query-column": columns.query,
        "--document-column": columns.document, "--score-column": options.score_column, "--keep": options.keep,
        "--no-header": options.no_header, "--out-format": format,
    }  # fmt: skip


def _execution(options: argparse.Namespace) -> str:
    """The preset that is asked for, or the one that suits the input's size."""
    if options.execution is not None:
        return str(options.execution)
    small = options.pairs != STREAM and Path(options.pairs).stat().st_size < EAGER_BYTES
    return "packed-eager" if small else DEFAULT_PRESET


def _refuse_bad(options: argparse.Namespace, part: ScoredChunk) -> None:
    """Stop at a record that cannot be scored, unless such are skipped."""
    if part.bad and options.skip_bad is None:
        first = part.bad[0]
        more = "" if options.out == STREAM else " --resume"
        raise PairError(
            f"{options.pairs}, line {first.number}: {first.why.rstrip('.')}. Mend it, or skip such records "
            f"with --skip-bad FILE{more}."
        )


def _say(options: argparse.Namespace, what: str) -> None:
    if not options.quiet:
        print(f"xenc: {what}", file=sys.stderr)
