"""Pairs to profile with, of the prose that every Python ships."""

from __future__ import annotations

import random
import re
from functools import cache
from pydoc_data.topics import topics

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
