"""Options that several commands have: which model, how it scores, which columns hold the pairs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import sentence_transformers
import torch

from ..cross_encoder import CrossEncoder
from ..default_model import DEFAULT_MODEL
from ..errors import XencError, first_line
from ..execution import Execution
from ..files import FORMATS, Columns, read_pairs
from ..models.precision import fastest_dtype
from ..presets import resolve_execution
from ..profiling.texts import prose_pairs
from ..text.windows import LongDocuments

DTYPES: Final = ("float32", "bfloat16", "float16")

Add = Callable[..., Any]


def add_model(add: Add) -> None:
    """--model and what is loaded with it."""
    add("--model", default=DEFAULT_MODEL, metavar="MODEL",
        help="a model's name, or a folder (default: the small one of xenc, to try things out)")  # fmt: skip
    add_trust(add)


def add_trust(add: Add) -> None:
    """--revision and --trust-remote-code."""
    add("--revision", metavar="REVISION", help="which commit of the model")
    add("--trust-remote-code", action="store_true", help="run Python code that comes with the model")


def add_computing(add: Add, dtype: str = "what to compute in (default: the checkpoint's)") -> None:
    """--dtype, with its help, --device and --max-length."""
    add("--dtype", choices=(*DTYPES, "fastest"), help=dtype)
    add("--device", help="cpu, cuda, ... (default: the fastest there is)")
    add("--max-length", type=positive, metavar="TOKENS", help="cut pairs beyond this (default: the model's)")


def add_columns(add: Add, *, query: bool = True) -> None:
    """--format, and the columns' names."""
    add("--format", choices=FORMATS, help="of the input (default: by its suffix; JSON Lines of a stream)")
    if query:
        add("--query-column", default="query", metavar="NAME", help="(default: %(default)s)")
    add("--document-column", default="document", metavar="NAME", help="(default: %(default)s)")
    add("--no-header", action="store_true",
        help="a .csv or .tsv without a line of names: its columns are called 1, 2, ...")  # fmt: skip


def columns_of(options: argparse.Namespace) -> Columns:
    """The columns that are asked for; 1 and 2 where no line names them."""
    query, document = getattr(options, "query_column", "query"), options.document_column
    if options.no_header:
        query, document = {"query": "1"}.get(query, query), {"document": "2"}.get(document, document)
    return Columns(query, document, header=not options.no_header)


def add_long_documents(add: Add) -> None:
    """--long-documents."""
    add("--long-documents", choices=get_args(LongDocuments), default="cut",
        help="a document that does not fit: cut, or scored in windows (default: %(default)s)")  # fmt: skip


def load(options: argparse.Namespace, execution: Execution | str, dtype: str | None = None) -> CrossEncoder:
    """The model that is asked for.

    Raises:
        XencError: a device that is not there, a model that cannot be loaded.
    """
    check_device(options.device)
    model: CrossEncoder = CrossEncoder(
        options.model, model_kwargs=_dtype_asked(options, dtype), execution=resolve_execution(execution),
        long_documents=getattr(options, "long_documents", "cut"), **said(options),
    )  # fmt: skip
    return model


def load_plain(options: argparse.Namespace, dtype: str | None = None) -> sentence_transformers.CrossEncoder:
    """The same model as sentence-transformers' own class.

    Raises:
        Exception: whatever it raises.
    """
    plain = sentence_transformers.CrossEncoder
    model: sentence_transformers.CrossEncoder = plain(
        options.model, model_kwargs=_dtype_asked(options, dtype), **said(options)
    )
    return model


def said(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of a model that were given on the command line, without its dtype."""
    names = ("device", "revision", "max_length", "trust_remote_code")
    asked = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in asked.items() if value not in (None, False)}


def _dtype_asked(options: argparse.Namespace, dtype: str | None) -> dict[str, Any]:
    dtype = dtype or options.dtype
    return {} if dtype is None else {"dtype": dtype_of(dtype, options.device)}


def dtype_of(name: str, device: str | None) -> torch.dtype:
    """The dtype of a name; "fastest" is what the device is good at."""
    if name != "fastest":
        found: torch.dtype = getattr(torch, name)
        return found
    return fastest_dtype(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def check_device(device: str | None) -> None:
    """Raise XencError if the device is not there."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        raise XencError(f"--device {device}: {first_line(error)}. Try cpu, or leave it out.") from error


def pairs_of(options: argparse.Namespace, count: int) -> list[tuple[str, str]]:
    """The pairs of --pairs, or so many of prose."""
    if options.pairs is None:
        return prose_pairs(count)
    return list(read_pairs(options.pairs, columns_of(options), options.format))


def folder(path: Path) -> Path:
    """A folder to write to, which need not be there yet.

    Raises:
        XencError: it is a file.
    """
    if path.exists() and not path.is_dir():
        raise XencError(f"--out {path}: is a file. Name a folder that can be made.")
    return path


def make(folder: Path) -> None:
    """Make a folder, or raise XencError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise XencError(f"--out {folder}: {error.strerror}. Name a folder that can be made.") from error


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",")]


def positive(text: str) -> int:
    """A positive whole number."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number
