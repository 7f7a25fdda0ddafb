"""Pairs to profile with: from a file, or from the prose that every Python ships."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from ..errors import PairError

Pair = tuple[str, str]


@cache
def sentences() -> tuple[str, ...]:
    """Sentences of 4 to 60 words from `pydoc_data.topics`, in a fixed order; no code, tables or grammar."""
    prose: dict[str, None] = {}
    for _, text in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", text):
            for sentence in re.split(r"(?<=[.?!:])\s+(?=[A-Z*“\"])", " ".join(paragraph.split())):
                if sentence[:1].isupper() and sentence[-1] in ".?!:" and 4 <= len(sentence.split()) <= 60:
                    prose[sentence] = None
    return tuple(prose)


def prose_pairs(count: int = 64) -> list[Pair]:
    """Pairs of a sentence and a document of one to eight sentences, the same each time."""
    draw = random.Random(0)
    return [
        (draw.choice(sentences()), " ".join(draw.choices(sentences(), k=draw.randint(1, 8))))
        for _ in range(count)
    ]


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a file: .tsv with two columns, or .jsonl with ["query", "document"] or an object of both.

    Raises:
        PairError: a file that cannot be read or holds no pairs; a line that is no pair, by its number.
    """
    kind = path.suffix.lower()
    if kind not in (".tsv", ".jsonl"):
        raise PairError(f"{path}: pairs are read from .jsonl or .tsv, and {path.suffix!r} is neither.")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise PairError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise PairError(f"{path}: is not UTF-8 text: {error}.") from error
    pairs = []
    for number, line in enumerate((line.rstrip("\r") for line in lines), 1):
        if line.strip():
            found = line.split("\t") if kind == ".tsv" else _from_json(line)
            if len(found) != 2 or not all(isinstance(text, str) for text in found):
                raise PairError(
                    f"{path}, line {number}: {line[:60]!r} is no pair: in .tsv give two columns, in .jsonl "
                    '["query", "document"] or {"query": ..., "document": ...}.'
                )
            pairs.append((found[0], found[1]))
    if not pairs:
        raise PairError(f"{path} holds no pairs: give at least one.")
    return pairs


def _from_json(line: str) -> list[Any]:
    try:
        read = json.loads(line)
    except json.JSONDecodeError:
        return []
    if isinstance(read, dict):
        read = [read.get("query"), read.get("document")]
    return read if isinstance(read, list) else []
