"""`xenc rank`: documents of a file in the order in which they answer a question."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import PairError
from ..files.documents import read_documents, read_lines
from ..presets import PRESETS
from . import options as ask

WHAT: Final = "rank the documents of a file for a question, or for each question of a file"
EXAMPLES: Final = """\
examples:
  xenc rank "How do bees make honey?" docs.txt
  xenc rank "How do bees make honey?" docs.jsonl --document-column text --top-k 3 --json
  xenc rank --queries questions.txt docs.txt --json > ranked.jsonl

docs.txt holds a document on each line; a .jsonl, .csv, .tsv or .parquet file one in each record's column.
"""

Hits = Sequence[Any]

TOP_K: Final = 10

BESIDE_DOCUMENT: Final = 28
"""Characters of the table's other columns."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("query", metavar="QUESTION", nargs="?", help="what is asked; leave it out with --queries")
    add("documents", metavar="DOCS", help="a file, or - for standard input: a document on each line")
    add("--queries", type=Path, metavar="FILE", help="questions, one on each line")
    add(
        "--top-k",
        type=ask.positive,
        default=TOP_K,
        metavar="K",
        help="how many to show (default: %(default)s)",
    )
    add("--json", action="store_true", help="print JSON Lines instead of a table")
    ask.add_model(add)
    add("--execution", choices=list(PRESETS), default="packed-eager", metavar="PRESET",
        help="how to score (default: %(default)s, which compiles nothing)")  # fmt: skip
    ask.add_computing(add)
    ask.add_long_documents(add)
    ask.add_columns(add, query=False)


def run(options: argparse.Namespace) -> None:
    """Rank, and print.

    Raises:
        XencError: options, a file or a model that cannot be used.
    """
    if (options.query is None) == (options.queries is None):
        raise PairError("give either a QUESTION or a file of them with --queries, and DOCS behind it.")
    documents = read_documents(options.documents, ask.columns_of(options), options.format)
    queries = [options.query] if options.queries is None else read_lines(str(options.queries))
    with ask.load(options, options.execution) as model:
        if model.num_labels != 1:
            raise PairError(f"{options.model}: gives {model.num_labels} scores for a pair: it cannot rank.")
        for query in queries:
            hits = model.rank(query, documents, top_k=options.top_k)
            (_print_json if options.json else _print_table)(query, hits, documents)


def _print_json(query: str, hits: Hits, documents: list[str]) -> None:
    for place, hit in enumerate(hits, 1):
        index = int(hit["corpus_id"])
        row = {
            "query": query,
            "rank": place,
            "score": _score(hit),
            "index": index,
            "document": documents[index],
        }
        print(json.dumps(row, ensure_ascii=False))


def _print_table(query: str, hits: Hits, documents: list[str]) -> None:
    width = shutil.get_terminal_size((110, 24)).columns
    table = Table(title=Text(query), title_justify="left", box=None, pad_edge=False, title_style="bold")
    for name in ("rank", "score", "index"):
        table.add_column(name, justify="right")
    table.add_column("document")
    for place, hit in enumerate(hits, 1):
        index = int(hit["corpus_id"])
        text = Text(" ".join(documents[index].split()))
        text.truncate(width - BESIDE_DOCUMENT, overflow="ellipsis")
        table.add_row(str(place), f"{hit['score']:.4f}", str(index), text)
    Console(width=width, file=sys.stdout).print(table)


def _score(hit: Any) -> float:
    return float(str(np.float32(hit["score"])))
