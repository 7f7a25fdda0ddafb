"""Long documents: cut into overlapping windows that all carry the query, whose scores become one.

MaxP, FirstP and the mean of passages: Dai and Callan, Deeper Text Understanding for IR with Contextual Neural
Language Modeling (2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from transformers import PreTrainedTokenizerBase

from ..errors import ModelError
from .pairs import faults_named
from .tokenizer import borrowed
from .tokens import Pairs, Tokenize

LongDocuments = Literal["cut", "first", "max", "mean"]

OVERLAP: Final = 4
"""One part in so many of a window is in the next one too."""

FEWEST_TOKENS: Final = 8
"""Of a document beside its query. If the query leaves fewer, the pair is cut as a whole."""

SPARE_TOKENS: Final = 2
"""A part of a text may have more tokens by itself than within the text, at its ends."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What is scored in place of N pairs.

    Attributes:
        pairs: the windows of the first pair in their order in the text, then those of the second, ...
        counts: [N] windows of each pair; 1 for a pair that fits.
    """

    pairs: Sequence[tuple[str, str]]
    counts: Sequence[int]


def known(long_documents: str) -> LongDocuments:
    """The value itself.

    Raises:
        ModelError: there is no such way to score long documents.
    """
    for way in get_args(LongDocuments):
        if way == long_documents:
            return way  # type: ignore[no-any-return]
    raise ModelError(
        f"long_documents={long_documents!r}: choose one of {', '.join(get_args(LongDocuments))}."
    )


def windows_of(
    pairs: Pairs, tokenize: Tokenize, tokenizer: PreTrainedTokenizerBase, max_length: int, *, first: bool
) -> Windows:
    """Cut the documents that do not fit beside their queries.

    Args:
        pairs: (query, document) pairs.
        tokenize: makes the tokens of pairs as they are scored, with prompts and special tokens.
        tokenizer: a fast one, which tells where its tokens stand in the text.
        max_length: the most tokens a pair may have.
        first: keep the first window alone.

    Raises:
        ModelError: the tokenizer is a slow one.
    """
    if not tokenizer.is_fast:
        raise ModelError(f"{type(tokenizer).__name__} is a slow tokenizer: long_documents needs a fast one.")
    queries, documents = (list(dict.fromkeys(texts)) for texts in zip(*pairs, strict=True))
    alone = tokenize([(query, "") for query in queries]).counts
    left = {query: max_length - count for query, count in zip(queries, alone, strict=True)}
    with borrowed(tokenizer), faults_named(pairs):
        encoded = tokenizer(
            documents, add_special_tokens=False, return_offsets_mapping=True, truncation=False,
            return_attention_mask=False, verbose=False,
        )  # fmt: skip
    places = dict(zip(documents, encoded["offset_mapping"], strict=True))
    made: list[tuple[str, str]] = []
    counts = []
    for query, document in pairs:
        parts = _parts(document, places[document], left[query])[: 1 if first else None]
        made += [(query, part) for part in parts]
        counts.append(len(parts))
    return Windows(pairs=made, counts=counts)


def _parts(document: str, places: Sequence[tuple[int, int]], left: int) -> list[str]:
    """A document's windows; itself if it fits.

    Args:
        document: the text.
        places: where each of its tokens begins and ends.
        left: tokens that the query leaves.
    """
    room = left - SPARE_TOKENS
    if len(places) <= left or room < FEWEST_TOKENS:
        return [document]
    step, last = room - room // OVERLAP, len(places) - room
    starts = [*range(0, last, step), last]
    return [document[places[start][0] : places[start + room - 1][1]] for start in starts]
