"""Named, seeded, fingerprinted lists of pairs, drawn from the prose that every Python ships.

A round is one list of pairs. Round r of a workload is the same list wherever that prose is the same, so
that two runs, or two revisions, can be compared round by round; the fingerprint says whether it was.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from xenc.profiling.texts import sentences

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A protocol for making pairs.

    Attributes:
        name: what reports call it.
        pairs_per_round: how many pairs one round scores.
        batch_size: pairs per batch.
        max_length: tokens to truncate at.
        draw: makes one pair per call from a seeded generator and the pair's index.
        fresh: a new list each round; otherwise every round repeats the first.
    """

    name: str
    pairs_per_round: int
    batch_size: int
    max_length: int
    draw: Callable[[random.Random, int], Pair]
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


def _some_sentences(generator: random.Random, low: int, high: int) -> str:
    return " ".join(generator.choices(sentences(), k=generator.randint(low, high)))


def _seed_pair(generator: random.Random, _: int) -> Pair:
    """The original protocol: each side 2 to 15 random sentences."""
    return _some_sentences(generator, 2, 15), _some_sentences(generator, 2, 15)


def _short_query_pair(generator: random.Random, _: int) -> Pair:
    """One query of about eight tokens against documents of one to four sentences."""
    return "How does Python look up names?", _some_sentences(generator, 1, 4)


def _short_document_pair(generator: random.Random, _: int) -> Pair:
    return "How does Python look up names?", _some_sentences(generator, 1, 1)


def _rank_pair(generator: random.Random, _: int) -> Pair:
    """The short query against documents of about 150 tokens."""
    return "How does Python look up names?", _some_sentences(generator, 4, 8)


def _long_pair(generator: random.Random, _: int) -> Pair:
    return _some_sentences(generator, 1, 1), _some_sentences(generator, 30, 40)


def _sentence_pair(generator: random.Random, _: int) -> Pair:
    return _some_sentences(generator, 1, 1), _some_sentences(generator, 1, 1)


def _brief_pair(generator: random.Random, _: int) -> Pair:
    return _some_sentences(generator, 1, 1), _some_sentences(generator, 1, 3)


def _skewed_pair(generator: random.Random, index: int) -> Pair:
    """Seven short documents, then one that fills the model: what padding to the longest pays for."""
    if index % 8 == 7:
        return _long_pair(generator, index)
    return _some_sentences(generator, 1, 1), _some_sentences(generator, 1, 2)


def seed(*, pairs: int, batch_size: int) -> Workload:
    """The original protocol, fresh pairs each round."""
    return Workload(
        name="seed", pairs_per_round=pairs, batch_size=batch_size, max_length=512, draw=_seed_pair
    )


def short_query(*, batch_size: int) -> Workload:
    """One rerank request: a short query against 100 documents, the same each round."""
    return _one_request("short-query", _short_query_pair, batch_size)


def short_documents(*, batch_size: int) -> Workload:
    """The short query against 100 documents of one sentence, the same each round."""
    return _one_request("short-documents", _short_document_pair, batch_size)


def rank_request(*, batch_size: int) -> Workload:
    """The short query against 100 documents of about 150 tokens, the same each round."""
    return _one_request("rank-request", _rank_pair, batch_size)


def full(*, pairs: int, max_length: int) -> Workload:
    """Pairs that are all cut to the same number of tokens."""
    return Workload(
        name=f"full-{max_length}", pairs_per_round=pairs, batch_size=64, max_length=max_length,
        draw=_long_pair,
    )  # fmt: skip


def _one_request(name: str, draw: Callable[[random.Random, int], Pair], batch_size: int) -> Workload:
    return Workload(
        name=name, pairs_per_round=100, batch_size=batch_size, max_length=512, draw=draw, fresh=False
    )


def skewed(*, pairs: int, batch_size: int) -> Workload:
    """One long document in eight."""
    return Workload(
        name="skewed", pairs_per_round=pairs, batch_size=batch_size, max_length=512, draw=_skewed_pair
    )


def sentence_pairs(*, pairs: int, batch_size: int) -> Workload:
    """One sentence against another, cut to 64 tokens."""
    return Workload(
        name="sentence-pairs",
        pairs_per_round=pairs,
        batch_size=batch_size,
        max_length=64,
        draw=_sentence_pair,
    )


def brief(*, pairs: int, batch_size: int) -> Workload:
    """One sentence against one to three, cut to 128 tokens: eight buckets of 16."""
    return Workload(
        name="brief", pairs_per_round=pairs, batch_size=batch_size, max_length=128, draw=_brief_pair
    )


# sized so that two cores time every preset within minutes
ON_CPU = (seed(pairs=16, batch_size=4), short_query(batch_size=4), skewed(pairs=16, batch_size=4))
ON_GPU = (seed(pairs=1024, batch_size=64), short_query(batch_size=64), skewed(pairs=1024, batch_size=64))
