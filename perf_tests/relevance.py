"""Queries with documents that people judged to be relevant or not, to judge rankings by.

The judgements are the human tags of 314 arXiv papers in the package cherche (MIT). A query is a tag's name, a
document a paper's title and how its abstract begins; it is relevant if the paper carries the tag. Only the
package's data is read; none of its code runs.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from perf_tests.workloads import Pair

QUERIES: Final = 12
CANDIDATES: Final = 24
MOST_RELEVANT: Final = 12

_NO_SUBJECT: Final = frozenset(
    {
        "arxiv_doc", "survey", "good", "discute_avec_raphael", "kd_mkb_biblio", "nlp_facebook", "nlp_google",
        "nlp_microsoft", "ml_google", "allen_institute_for_ai_a2i", "ruslan_salakhutdinov",
    }
)  # fmt: skip
"""Tags that name a paper's author or the tagger's opinion, which no text tells."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One query, its candidates, and which of them are relevant (1) or not (0)."""

    query: str
    documents: tuple[str, ...]
    relevance: tuple[int, ...]

    @property
    def pairs(self) -> list[Pair]:
        return [(self.query, document) for document in self.documents]


@dataclass(frozen=True)
class RelevanceSet:
    """Queries with judged candidates; its pairs are in the order of the queries."""

    queries: tuple[Judged, ...]

    @property
    def pairs(self) -> list[Pair]:
        return [pair for judged in self.queries for pair in judged.pairs]

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits over all texts and judgements."""
        return hashlib.sha256(repr(self.queries).encode()).hexdigest()[:12]


def missing() -> str | None:
    """Why there is no relevance set, and the remedy; None if there is one."""
    return None if find_spec("cherche") is not None else "not installed: pip install 'xenc[demo]'"


@cache
def arxiv_tags(queries: int = QUERIES, candidates: int = CANDIDATES) -> RelevanceSet:
    """The most used tags that name a subject, each with its papers and others drawn at random to make up
    `candidates`, in a seeded order.

    A tag of more than MOST_RELEVANT papers is left out: other papers then belong to it without carrying it.
    """
    papers, names = _data("arxiv.json"), _data("tags.json")
    uses = Counter(tag for paper in papers for tag in paper["tag"])
    ranked = sorted(uses, key=lambda tag: (-uses[tag], tag))
    subjects = [
        tag for tag in ranked if uses[tag] <= MOST_RELEVANT and tag.rsplit("/", 1)[1] not in _NO_SUBJECT
    ]
    return RelevanceSet(
        tuple(_judged(tag, names[tag]["prefLabel"][0], papers, candidates) for tag in subjects[:queries])
    )


def _judged(tag: str, name: str, papers: list[Mapping[str, Any]], candidates: int) -> Judged:
    generator = random.Random(tag)
    relevant = [paper for paper in papers if tag in paper["tag"]]
    others = [paper for paper in papers if tag not in paper["tag"]]
    drawn = [(paper, 1) for paper in relevant]
    drawn += [(paper, 0) for paper in generator.sample(others, candidates - len(relevant))]
    generator.shuffle(drawn)
    return Judged(
        query=name,
        documents=tuple(_text(paper) for paper, _ in drawn),
        relevance=tuple(grade for _, grade in drawn),
    )


def _text(paper: Mapping[str, Any]) -> str:
    """The title and the abstract's first sentence."""
    first = re.split(r"(?<=[.?!])\s", " ".join(paper["arxiv_summary"].split()))[0]
    return f"{' '.join(paper['arxiv_title'].split())}. {first}"


def _data(name: str) -> Any:
    spec = find_spec("cherche")
    assert spec is not None, missing()
    return json.loads((Path(spec.origin).parent / "data" / "semanlink" / name).read_text("utf-8"))
