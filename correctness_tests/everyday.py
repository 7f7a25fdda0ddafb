"""Questions about everyday things, each with the passage that answers it, to measure rank quality.

Written for this purpose, in eight themes of four. The passages of a theme are about related things, so that
its topic does not suffice to answer a question. No model has been trained on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Answered(NamedTuple):
    """A question and the one passage that answers it."""

    question: str
    passage: str


_TEXT = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
"""Under the name of each theme, its questions, each followed by its passage."""


def _themes() -> dict[str, tuple[Answered, ...]]:
    themes = {}
    for part in _TEXT.split("# ")[1:]:
        name, *entries = part.replace("\n- ", "\f").replace("\n", " ").strip().split("\f")
        parts = (entry.partition("? ") for entry in entries)
        themes[name] = tuple(Answered(question + "?", passage) for question, _, passage in parts)
    return themes


THEMES = _themes()
QUESTIONS = tuple(answered for theme in THEMES.values() for answered in theme)


@dataclass(frozen=True)
class RankQuality:
    """How well a scorer ranks the questions above.

    Attributes:
        questions: how many there are.
        missed: those whose answer is not ranked first among the four passages of its theme.
        mean_reciprocal_rank: of the answer among the passages of all themes, in (0, 1].
    """

    questions: int
    missed: tuple[str, ...]
    mean_reciprocal_rank: float

    @property
    def first_of_theme(self) -> int:
        """For how many questions the answer is first of its theme; chance is a quarter."""
        return self.questions - len(self.missed)


def all_pairs() -> list[tuple[str, str]]:
    """Every question with the passage of every question, row by row."""
    return [(asked.question, answer.passage) for asked in QUESTIONS for answer in QUESTIONS]


def rank_quality(scores: Sequence[float]) -> RankQuality:
    """The rank quality of the scores of `all_pairs()`. A tie counts against the answer."""
    count = len(QUESTIONS)
    missed, reciprocal = [], 0.0
    theme_of = [name for name, theme in THEMES.items() for _ in theme]
    for row in range(count):
        of_row = scores[row * count : (row + 1) * count]
        better = [col for col in range(count) if col != row and of_row[col] >= of_row[row]]
        if any(theme_of[col] == theme_of[row] for col in better):
            missed.append(QUESTIONS[row].question)
        reciprocal += 1 / (1 + len(better))
    return RankQuality(count, tuple(missed), reciprocal / count)
