"""Encoder-decoder rerankers: a prompt for the encoder, and which tokens the decoder's first step compares.

monoT5 (Nogueira et al. 2020, "Document Ranking with a Pretrained Sequence-to-Sequence Model") is asked
"Query: ... Document: ... Relevant:" and answers "true" or "false"; the score is the log-odds of the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from ..errors import ModelError
from .pairs import refuse_half_characters
from .template import tokenizer_lock
from .tokens import TokenizedPairs

_PLACES: Final = ("{query}", "{document}")
_WORD_START: Final = "▁"
"""What a vocabulary of SentencePiece's kind writes in front of a word's first token."""


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """What a T5 reranker (`T5ForConditionalGeneration`) is asked, and which answers are compared.

    A pair has one score for each of `decoder_prefixes` and, within that, each of `targets`: the log-odds of
    the two tokens where the decoder goes on after the prefix. The encoder runs once for all of them.

    Attributes:
        prompt: what the encoder reads; holds "{query}" and "{document}" once each.
        targets: pairs (relevant, irrelevant) of words that are one token each. "▁true" names a token as the
            vocabulary writes it, "true" the one token that the tokenizer makes of that text.
        decoder_prefixes: what the decoder has said already, "" for nothing.

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
        """How many scores a pair has."""
        return len(self.decoder_prefixes) * len(self.targets)

    def filled(self, query: str, document: str) -> FilledPrompt:
        """The prompt with two texts in it. Braces in the texts mean nothing."""
        texts, spans = dict(zip(_PLACES, (query, document), strict=True)), {}
        text = ""
        for part in re.split("({query}|{document})", self.prompt):
            start, text = len(text), text + texts.get(part, part)
            spans[part] = (start, len(text))
        return FilledPrompt(text=text, query=spans[_PLACES[0]], document=spans[_PLACES[1]])


@dataclass(frozen=True, kw_only=True)
class FilledPrompt:
    """A prompt with two texts in it, and from which character to which each stands.

    Attributes:
        text: the whole.
        query: (first, behind the last) character of the query.
        document: (first, behind the last) character of the document.
    """

    text: str
    query: tuple[int, int]
    document: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class FirstStepIds:
    """A `FirstStep` in one tokenizer's ids.

    Attributes:
        prefixes: for each decoder prefix, the start token and the prefix's ids.
        targets: for each pair of targets, the ids of the relevant and of the irrelevant one.
        scale: what the model multiplies the decoder's state with before it projects onto the vocabulary.
    """

    prefixes: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[int, int], ...]
    scale: float


def first_step_ids(
    first_step: FirstStep, tokenizer: PreTrainedTokenizerBase, start_id: int, scale: float
) -> FirstStepIds:
    """The ids that a decoder begins with, and those of the tokens that are compared.

    Args:
        first_step: what is asked.
        tokenizer: the model's.
        start_id: the token that every decoder input begins with.
        scale: see `FirstStepIds`.

    Raises:
        ModelError: a target that is not one token of the vocabulary.
    """
    targets = tuple(
        (_target_id(tokenizer, relevant), _target_id(tokenizer, irrelevant))
        for relevant, irrelevant in first_step.targets
    )
    for (relevant, irrelevant), words in zip(targets, first_step.targets, strict=True):
        if relevant == irrelevant:
            raise ModelError(f"targets={words!r} are the same token {relevant}: their log-odds is always 0.")
    prefixes = tuple((start_id, *_ids_of_text(tokenizer, prefix)) for prefix in first_step.decoder_prefixes)
    return FirstStepIds(prefixes=prefixes, targets=targets, scale=scale)


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
    with tokenizer_lock(tokenizer):
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def read_prompts(
    first_step: FirstStep,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    pairs: Sequence[tuple[str, str]],
) -> TokenizedPairs:
    """The tokens of N filled prompts.

    A prompt that is too long loses tokens of its document, so that what comes after it, which asks the
    question, stays. (Cut plainly at its end, as pygaggle does, it would lose the question.) Where the
    document is not enough, the query gives way too.

    Prompts are tokenized whole: where a word ends and the next begins is the tokenizer's to say.

    Args:
        first_step: what is asked.
        tokenizer: the model's; must know which characters a token is made of.
        max_length: the most tokens a prompt may have.
        pairs: N pairs (query, document).

    Raises:
        PairError: a text that holds half of a surrogate pair; the message says which.
    """
    if not pairs:
        return TokenizedPairs(input_ids=[], token_type_ids=None, truncated_pairs=0)
    prompts = [first_step.filled(query, document) for query, document in pairs]
    try:
        with tokenizer_lock(tokenizer):
            encoded = tokenizer(
                [prompt.text for prompt in prompts], padding=False, truncation=False, verbose=False,
                return_offsets_mapping=True, return_attention_mask=False, return_token_type_ids=False,
            )  # fmt: skip
    except TypeError:
        refuse_half_characters(pairs)
        raise
    rows: list[list[int]] = encoded["input_ids"]
    cut = partial(_cut, max_length=max_length, left=tokenizer.truncation_side == "left")
    long = [row for row, ids in enumerate(rows) if len(ids) > max_length]
    for row in long:
        rows[row] = cut(rows[row], encoded["offset_mapping"][row], prompts[row])
    return TokenizedPairs(input_ids=rows, token_type_ids=None, truncated_pairs=len(long))


def _cut(
    ids: list[int], offsets: list[tuple[int, int]], prompt: FilledPrompt, *, max_length: int, left: bool
) -> list[int]:
    """The ids without as many of the document's, and then of the query's, as are too many.

    Last go those that are made of the prompt's characters too, as of a prompt without spaces.

    Raises:
        ModelError: what is left of the prompt alone is too long.
    """
    places = (prompt.document, prompt.query)
    dropped: set[int] = set()
    for belongs in (
        *(partial(_inside, span=span, text=prompt.text) for span in places),
        partial(_touches, places),
    ):
        own = [at for at, offset in enumerate(offsets) if at not in dropped and belongs(offset)]
        excess = len(ids) - len(dropped) - max_length
        dropped |= set(own[:excess] if left else own[::-1][:excess]) if excess > 0 else set()
    if len(ids) - len(dropped) > max_length:
        raise ModelError(
            f"max_length={max_length}: the prompt alone has {len(ids) - len(dropped)} tokens. Raise "
            "max_length, or ask something shorter."
        )
    return [token for at, token in enumerate(ids) if at not in dropped]


def _inside(offset: tuple[int, int], span: tuple[int, int], text: str) -> bool:
    """Whether a token is made of these characters alone, but for space in front; special ones of none."""
    (start, end), (first, behind) = offset, span
    return start < end and first < end <= behind and not text[start:first].strip()


def _touches(places: Sequence[tuple[int, int]], offset: tuple[int, int]) -> bool:
    """Whether a token is made of any character of these places."""
    start, end = offset
    return start < end and any(start < behind and first < end for first, behind in places)


def _is_tuple_of(value: object, kind: type) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, kind) for item in value)


def _is_pair_of_words(value: Any) -> bool:
    return len(value) == 2 and _is_tuple_of(value, str) and all(value) and value[0] != value[1]
