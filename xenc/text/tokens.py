"""Pairs of texts -> token ids and true counts. No padding, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final, NamedTuple

from transformers import PreTrainedTokenizerBase

from .pairs import faults_named
from .tokenizer import (
    TextIds,
    borrowed,
    is_unmodified,
    leave_as_sentence_transformers,
    pair_template,
)


class PairTokens(NamedTuple):
    """One pair's token ids, and as many type ids or None."""

    ids: list[int]
    types: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class TokenizedPairs:
    """The tokens of N pairs, unpadded, in the caller's order.

    Attributes:
        input_ids: N lists of token ids, special tokens included.
        token_type_ids: N lists, the text that each token belongs to; None for a model without token types.
        truncated_pairs: number of pairs that were cut to max_length.
    """

    input_ids: list[list[int]]
    token_type_ids: list[list[int]] | None = None
    truncated_pairs: int = 0

    @property
    def counts(self) -> list[int]:
        """[N] token counts, without padding."""
        return [len(ids) for ids in self.input_ids]

    @property
    def pairs(self) -> list[PairTokens]:
        """[N] the same, pair by pair."""
        return list(map(PairTokens, self.input_ids, self.token_type_ids or repeat(None)))

    def of_rows(self, rows: Iterable[int]) -> list[PairTokens]:
        """The pairs of some rows, such as one batch of a plan."""
        pairs = self.pairs
        return [pairs[row] for row in rows]


Pairs = Sequence[tuple[str, str]]
Tokenize = Callable[[Pairs], TokenizedPairs]

MOST_SEEN: Final = 4096
"""Texts of one request whose ids are kept; beyond that the cache starts over."""


class PairReader:
    """Reads a pair as `tokenize` does, but each distinct text of a request only once.

    Args:
        tokenizer: a transformers tokenizer; one without a `PairTemplate` is called by `tokenize`.
        max_length: the most tokens a pair may have; the longer of the two texts is cut first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._template, self._ids = pair_template(tokenizer), TextIds(tokenizer)
        self._has_read = False

    def for_request(self, prompt: str | None) -> Tokenize:
        """A function that tokenizes the pairs of one request, some at a time, after the prompt if any."""
        if not self._has_read:
            self._has_read = True
            leave_as_sentence_transformers(self._tokenizer)
        seen: dict[str, list[int]] = {}
        return lambda pairs: self.read(prompted(prompt, pairs) if prompt else pairs, seen)

    def read(self, pairs: Pairs, seen: dict[str, list[int]]) -> TokenizedPairs:
        """The tokens of N pairs; `seen` holds ids of texts already tokenized, and these are added.

        Raises:
            PairError: a text holds half of a surrogate pair; the message gives its pair's index.
        """
        template = self._template
        if template is None or not pairs or not is_unmodified(self._tokenizer):
            return tokenize(self._tokenizer, pairs, max_length=self._max_length)
        ids = self._texts(pairs, seen)
        room = max(0, self._max_length - len(template.ids([], [])))
        left = self._tokenizer.truncation_side == "left"
        input_ids, type_ids, truncated = [], [], 0
        for query, document in pairs:
            first, second = ids[query], ids[document]
            if len(first) + len(second) > room:
                truncated += 1
                first, second = _cut(first, second, room, left=left)
            input_ids.append(template.ids(first, second))
            type_ids.append(template.type_ids(len(first), len(second)) or [])
        return TokenizedPairs(
            input_ids=input_ids,
            token_type_ids=None if template.types is None else type_ids,
            truncated_pairs=truncated,
        )

    def _texts(self, pairs: Pairs, seen: dict[str, list[int]]) -> dict[str, list[int]]:
        """`seen`, with every text of these pairs in it."""
        if len(seen) > MOST_SEEN:
            seen.clear()
        unseen = [text for text in dict.fromkeys(chain.from_iterable(pairs)) if text not in seen]
        if unseen:
            with faults_named(pairs):
                seen.update(zip(unseen, self._ids(unseen), strict=True))
        return seen


def prompted(prompt: str, pairs: Pairs) -> Pairs:
    """The pairs with a prompt before each query."""
    return [(prompt + query, document) for query, document in pairs]


def tokenize(tokenizer: PreTrainedTokenizerBase, pairs: Pairs, *, max_length: int) -> TokenizedPairs:
    """Tokenize all pairs in one batched call, with sentence-transformers' truncation ("longest_first").

    A Rust tokenizer that truncates also builds every overflowing piece of both texts, and their number is
    the product of the texts' lengths: two texts of 100,000 characters cost seconds and gigabytes. So a Rust
    tokenizer returns all tokens, and they are cut here.

    Raises:
        PairError: a text holds half of a surrogate pair; the message gives its pair's index.
    """
    if not pairs:
        return TokenizedPairs(input_ids=[])
    cut_here = tokenizer.is_fast
    with borrowed(tokenizer), faults_named(pairs):
        encoded = tokenizer(
            *map(list, zip(*pairs, strict=True)), padding=False, return_attention_mask=False, verbose=False,
            truncation=not cut_here and "longest_first", max_length=None if cut_here else max_length,
        )  # fmt: skip
        input_ids: list[list[int]] = encoded["input_ids"]
        type_ids: list[list[int]] | None = encoded.get("token_type_ids")
        if not cut_here:
            full = [pair for pair, ids in zip(pairs, input_ids, strict=True) if len(ids) >= max_length]
            cut = sum(len(tokenizer(*pair, verbose=False)["input_ids"]) > max_length for pair in full)
            return TokenizedPairs(input_ids=input_ids, token_type_ids=type_ids, truncated_pairs=cut)
    long = [row for row, ids in enumerate(input_ids) if len(ids) > max_length]
    for row in long:
        kept = _kept_positions(
            encoded.sequence_ids(row), max_length, left=tokenizer.truncation_side == "left"
        )
        input_ids[row] = [input_ids[row][position] for position in kept]
        if type_ids is not None:
            type_ids[row] = [type_ids[row][position] for position in kept]
    return TokenizedPairs(input_ids=input_ids, token_type_ids=type_ids, truncated_pairs=len(long))


def _kept_positions(sequence_ids: list[int | None], max_length: int, *, left: bool) -> list[int]:
    """Positions of the max_length tokens of a pair that are kept: all special ones, the rest by `_cut`.

    `sequence_ids` are the text that each token belongs to, 0 or 1; None for a special token.
    """
    first, second = ([at for at, text in enumerate(sequence_ids) if text == which] for which in (0, 1))
    special = [at for at, text in enumerate(sequence_ids) if text is None]
    return sorted([*special, *chain(*_cut(first, second, max(0, max_length - len(special)), left=left))])


def _cut(first: list[int], second: list[int], room: int, *, left: bool) -> tuple[list[int], list[int]]:
    """Cut two texts to `room` tokens together, on the left or the right.

    The longer text is cut until both are equally long; of an odd room it keeps one token more.
    """
    short, long = sorted((len(first), len(second)))
    if short + long > room:
        long = max(short, room - short)
        if short + long > room:
            short, long = room // 2, room - room // 2
    of_first, of_second = (long, short) if len(first) > len(second) else (short, long)
    if left:
        return first[len(first) - of_first :], second[len(second) - of_second :]
    return first[:of_first], second[:of_second]
