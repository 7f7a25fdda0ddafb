"""Named, seeded, fingerprinted lists of pairs, drawn from the prose that every Python ships.

A round is one list of pairs. Round r of a workload is the same list wherever that prose is the same, so that
two runs or two revisions can be compared round by round; the fingerprint shows whether it was.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from xenc.profiling.texts import sentences

Pair = tuple[str, str]
Draw = Callable[[random.Random, int], Pair]
"""Makes one pair from a seeded generator and the pair's index."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A protocol for making pairs.

    Attributes:
        name: in reports.
        pairs_per_round: pairs of one round.
        batch_size: pairs per padded batch.
        draw: makes each pair.
        max_length: tokens to truncate at.
        fresh: a new list each round; otherwise every round repeats the first.
    """

    name: str
    pairs_per_round: int
    batch_size: int
    draw: Draw
    max_length: int = 512
    fresh: bool = True

    def round(self, number: int) -> list[Pair]:
        """The pairs of one round."""
        generator = random.Random(f"{self.name} {number if self.fresh else 0}")
        return [self.draw(generator, index) for index in range(self.pairs_per_round)]

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits over the protocol and the texts of its first round."""
        protocol = (self.name, self.pairs_per_round, self.batch_size, self.max_length, self.fresh)
        return hashlib.sha256(repr((protocol, self.round(0))).encode()).hexdigest()[:12]


def _drawing(documents: tuple[int, int], queries: tuple[int, int] | None = None) -> Draw:
    """Texts of so many random sentences, at least and at most; without `queries`, one short question."""

    def text(generator: random.Random, least: int, most: int) -> str:
        return " ".join(generator.choices(sentences(), k=generator.randint(least, most)))

    def draw(generator: random.Random, _: int) -> Pair:
        query = "How does Python look up names?" if queries is None else text(generator, *queries)
        return query, text(generator, *documents)

    return draw


_SEED = _drawing((2, 15), (2, 15))
_SHORT_QUERY, _SHORT_DOCUMENT, _RANK = _drawing((1, 4)), _drawing((1, 1)), _drawing((4, 8))
_LONG, _ONE_OR_TWO = _drawing((30, 40), (1, 1)), _drawing((1, 2), (1, 1))
_BRIEF, _SENTENCE = _drawing((1, 3), (1, 1)), _drawing((1, 1), (1, 1))


def _skewed(generator: random.Random, index: int) -> Pair:
    """Seven short documents, then one that fills the model."""
    return (_LONG if index % 8 == 7 else _ONE_OR_TWO)(generator, index)


def seed(*, pairs: int, batch_size: int) -> Workload:
    """The original protocol: each side 2 to 15 sentences, fresh pairs each round."""
    return Workload(name="seed", pairs_per_round=pairs, batch_size=batch_size, draw=_SEED)


def _request(name: str, draw: Draw, batch_size: int) -> Workload:
    return Workload(name=name, pairs_per_round=100, batch_size=batch_size, draw=draw, fresh=False)


def short_query(*, batch_size: int) -> Workload:
    """One rerank request: a query of about eight tokens, 100 documents of one to four sentences."""
    return _request("short-query", _SHORT_QUERY, batch_size)


def short_documents(*, batch_size: int) -> Workload:
    """The same query against 100 documents of one sentence."""
    return _request("short-documents", _SHORT_DOCUMENT, batch_size)


def rank_request(*, batch_size: int) -> Workload:
    """The same query against 100 documents of about 150 tokens."""
    return _request("rank-request", _RANK, batch_size)


def crossed(*, queries: int, documents: int, batch_size: int) -> Workload:
    """Every query with every document, as when hard negatives are mined: each text is tokenized once."""

    return _crossing("crossed", queries, documents, batch_size, (2, 15), (2, 15))


def few_queries(*, queries: int, documents: int, batch_size: int) -> Workload:
    """Rerank requests over one collection: questions of one sentence, documents of one to six."""
    return _crossing("few-queries", queries, documents, batch_size, (1, 1), (1, 6))


def _crossing(
    name: str, queries: int, documents: int, batch_size: int,
    of_query: tuple[int, int], of_document: tuple[int, int],
) -> Workload:  # fmt: skip
    """Every query with every document; texts of so many random sentences, at least and at most."""

    def text(side: str, number: int, least: int, most: int) -> str:
        generator = random.Random(f"{name} {side} {number}")
        return " ".join(generator.choices(sentences(), k=generator.randint(least, most)))

    def draw(_: random.Random, index: int) -> Pair:
        query, document = divmod(index, documents)
        return text("query", query, *of_query), text("document", document, *of_document)

    return Workload(
        name=name, pairs_per_round=queries * documents, batch_size=batch_size, draw=draw, fresh=False
    )


def full(*, pairs: int, max_length: int) -> Workload:
    """Pairs that are all cut to max_length tokens."""
    return Workload(
        name=f"full-{max_length}", pairs_per_round=pairs, batch_size=64, draw=_LONG, max_length=max_length
    )


def skewed(*, pairs: int, batch_size: int) -> Workload:
    """One long document in eight: the worst case of padding to the longest."""
    return Workload(name="skewed", pairs_per_round=pairs, batch_size=batch_size, draw=_skewed)


def sentence_pairs(*, pairs: int, batch_size: int) -> Workload:
    """One sentence against another, cut to 64 tokens."""
    return Workload(
        name="sentence-pairs", pairs_per_round=pairs, batch_size=batch_size, draw=_SENTENCE, max_length=64
    )


def brief(*, pairs: int, batch_size: int) -> Workload:
    """One sentence against one to three, cut to 128 tokens: eight buckets of 16."""
    return Workload(name="brief", pairs_per_round=pairs, batch_size=batch_size, draw=_BRIEF, max_length=128)


# sized so that two cores time every preset within minutes
ON_CPU = (seed(pairs=16, batch_size=4), short_query(batch_size=4), skewed(pairs=16, batch_size=4))
ON_GPU = (seed(pairs=1024, batch_size=64), short_query(batch_size=64), skewed(pairs=1024, batch_size=64))
