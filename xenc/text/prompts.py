"""Encoder-decoder rerankers: the encoder's prompt, and the tokens compared at the decoder's first step.

monoT5 (Nogueira et al. 2020, "Document Ranking with a Pretrained Sequence-to-Sequence Model") reads
"Query: ... Document: ... Relevant:" and generates "true" or "false"; the score is the log-odds of the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from transformers import PreTrainedTokenizerBase

from ..errors import ModelError
from .pairs import faults_named
from .tokenizer import borrowed
from .tokens import TokenizedPairs

_PLACES: Final = ("{query}", "{document}")
_WORD_START: Final = "▁"
"""SentencePiece's mark on a word's first token."""

Span = tuple[int, int]
"""(first, behind the last) character."""


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """What a T5 reranker (`T5ForConditionalGeneration`) is asked, and which answers are compared.

    A pair has one score for each of `decoder_prefixes` and, within that, each of `targets`: the log-odds of
    the two tokens as the decoder's next token after the prefix. The encoder runs once for all of them.

    Attributes:
        prompt: what the encoder reads; holds "{query}" and "{document}" once each.
        targets: pairs (relevant, irrelevant) of words that are one token each. "▁true" names a token as the
            vocabulary writes it, "true" the one token that the tokenizer makes of that text.
        decoder_prefixes: texts that the decoder continues, "" for none.

    Raises:
        ModelError: a value that is not one of the above.
    """

    prompt: str = "Query: {query} Document: {document} Relevant:"
    targets: tuple[tuple[str, str], ...] = (("▁true", "▁false"),)
    decoder_prefixes: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or any(self.prompt.count(place) != 1 for place in _PLACES):
            raise ModelError(f"prompt={self.prompt!r}: write {{query}} and {{document}} into it, once each.")
        if not _is_tuple_of(self.targets, tuple) or not all(map(_is_pair_of_words, self.targets)):
            raise ModelError(
                f"targets={self.targets!r}: give a tuple of pairs of two different words, the relevant one "
                "first, such as (('true', 'false'),)."
            )
        if not _is_tuple_of(self.decoder_prefixes, str):
            raise ModelError(
                f"decoder_prefixes={self.decoder_prefixes!r}: give a tuple of texts, such as ('',)."
            )

    @property
    def scores(self) -> int:
        """Scores per pair."""
        return len(self.decoder_prefixes) * len(self.targets)


@dataclass(frozen=True, kw_only=True)
class FirstStepIds:
    """A `FirstStep` in one tokenizer's ids.

    Attributes:
        prefixes: for each decoder prefix, the start token and the prefix's ids.
        targets: for each pair of targets, the ids (relevant, irrelevant).
        scale: the model multiplies the decoder's state by it before projecting onto the vocabulary.
    """

    prefixes: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[int, int], ...]
    scale: float


def first_step_ids(
    first_step: FirstStep, tokenizer: PreTrainedTokenizerBase, start_id: int, scale: float
) -> FirstStepIds:
    """The ids of the decoder's prefixes, each after `start_id`, and of the tokens that are compared.

    Raises:
        ModelError: a target that is not one token of the vocabulary, or two that are the same.
    """
    targets = []
    for words in first_step.targets:
        relevant, irrelevant = (_target_id(tokenizer, word) for word in words)
        if relevant == irrelevant:
            raise ModelError(f"targets={words!r} are the same token {relevant}: their log-odds is always 0.")
        targets.append((relevant, irrelevant))
    prefixes = tuple((start_id, *_ids_of_text(tokenizer, prefix)) for prefix in first_step.decoder_prefixes)
    return FirstStepIds(prefixes=prefixes, targets=tuple(targets), scale=scale)


def _target_id(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    known = tokenizer.convert_tokens_to_ids(word)
    if word.startswith(_WORD_START) and isinstance(known, int) and known != tokenizer.unk_token_id:
        return known
    ids = _ids_of_text(tokenizer, word)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        read = tokenizer.convert_ids_to_tokens(ids)
        raise ModelError(
            f"target {word!r} is {read} to this tokenizer and not one token of its vocabulary: name the "
            "words that the model was trained to answer, FirstStep(targets=((relevant, irrelevant),))."
        )
    return ids[0]


def _ids_of_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    with borrowed(tokenizer):
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


class _Filled(NamedTuple):
    """A prompt with two texts in it, and where they are."""

    text: str
    query: Span
    document: Span


def _fill(prompt: str, query: str, document: str) -> _Filled:
    """Put two texts into a prompt. Braces in the texts have no meaning."""
    texts, spans, text = dict(zip(_PLACES, (query, document), strict=True)), {}, ""
    for part in re.split("({query}|{document})", prompt):
        start, text = len(text), text + texts.get(part, part)
        spans[part] = (start, len(text))
    return _Filled(text, *(spans[place] for place in _PLACES))


def read_prompts(
    first_step: FirstStep,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    pairs: Sequence[tuple[str, str]],
) -> TokenizedPairs:
    """Tokenize the prompts of N pairs (query, document), each as a whole; the tokenizer must return offsets.

    A prompt that is too long loses tokens of its document, then of its query; the question after them stays.
    (pygaggle cuts the prompt's end, and with it the question.)

    Raises:
        PairError: a text holds half of a surrogate pair; the message gives its pair's index.
        ModelError: the prompt without the pair's tokens is longer than max_length.
    """
    if not pairs:
        return TokenizedPairs(input_ids=[])
    prompts = [_fill(first_step.prompt, *pair) for pair in pairs]
    with borrowed(tokenizer), faults_named(pairs):
        encoded = tokenizer(
            [prompt.text for prompt in prompts], padding=False, truncation=False, verbose=False,
            return_offsets_mapping=True, return_attention_mask=False, return_token_type_ids=False,
        )  # fmt: skip
    rows: list[list[int]] = encoded["input_ids"]
    left = tokenizer.truncation_side == "left"
    long = [row for row, ids in enumerate(rows) if len(ids) > max_length]
    for row in long:
        rows[row] = _cut(rows[row], encoded["offset_mapping"][row], prompts[row], max_length, left=left)
    return TokenizedPairs(input_ids=rows, truncated_pairs=len(long))


def _cut(ids: list[int], offsets: list[Span], prompt: _Filled, max_length: int, *, left: bool) -> list[int]:
    """The ids without the first (left) or last tokens of the document, then of the query."""
    ranks = [_rank(offset, prompt) for offset in offsets]
    droppable = sorted((rank, at if left else -at) for at, rank in enumerate(ranks) if rank is not None)
    excess = len(ids) - max_length
    if len(droppable) < excess:
        raise ModelError(
            f"max_length={max_length}: the prompt alone has {len(ids) - len(droppable)} tokens. Raise "
            "max_length, or ask something shorter."
        )
    dropped = {abs(at) for _, at in droppable[:excess]}
    return [token for at, token in enumerate(ids) if at not in dropped]


def _rank(offset: Span, prompt: _Filled) -> int | None:
    """The order in which tokens are dropped: the document's 0, the query's 1, partly the prompt's 2; or None.

    A token belongs to a text if all its characters do, except space before the text.
    """
    (start, end), places = offset, (prompt.document, prompt.query)
    if start == end:  # a special token
        return None
    for rank, (first, behind) in enumerate(places):
        if first < end <= behind and not prompt.text[start:first].strip():
            return rank
    return 2 if any(start < behind and first < end for first, behind in places) else None


def _is_tuple_of(value: object, kind: type) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, kind) for item in value)


def _is_pair_of_words(value: Any) -> bool:
    return len(value) == 2 and _is_tuple_of(value, str) and all(value) and value[0] != value[1]
