"""Pairs of texts -> token ids and true counts. No padding, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, NamedTuple

from transformers import PreTrainedTokenizerBase

from .ids import TextIds
from .pairs import refuse_half_characters
from .template import pair_template, tokenizer_lock


class PairTokens(NamedTuple):
    """One pair's token ids, and as many type ids or None; what a collator lays out."""

    ids: list[int]
    types: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class TokenizedPairs:
    """The tokens of N pairs, unpadded, in the caller's order.

    Attributes:
        input_ids: N lists of token ids, special tokens included.
        token_type_ids: N lists as long as input_ids' (which text a token belongs to), or None for a
            model that takes none.
        truncated_pairs: how many pairs lost tokens to max_length.
    """

    input_ids: list[list[int]]
    token_type_ids: list[list[int]] | None
    truncated_pairs: int

    @property
    def counts(self) -> list[int]:
        """The true number of tokens of each pair: [N]."""
        return [len(ids) for ids in self.input_ids]

    @property
    def pairs(self) -> list[PairTokens]:
        """The same, pair by pair: [N]."""
        return list(map(PairTokens, self.input_ids, self.token_type_ids or repeat(None)))

    def of_rows(self, rows: Iterable[int]) -> list[PairTokens]:
        """Some of the pairs, such as those of one batch of a plan."""
        pairs = self.pairs
        return [pairs[row] for row in rows]


MOST_SEEN: Final = 4096
"""Texts of one request whose ids are kept."""


class PairTokenizer:
    """Tokenizes pairs, each text of a request once, however many pairs it stands in.

    The ids are those of `tokenize`, to which tokenizers go that join two texts in ways of their own.

    Args:
        tokenizer: a transformers tokenizer.
        max_length: the most tokens a pair may have; the longer of the two texts is cut first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._template, self._ids = pair_template(tokenizer), TextIds(tokenizer)

    def __call__(
        self, pairs: Sequence[tuple[str, str]], seen: dict[str, list[int]] | None = None
    ) -> TokenizedPairs:
        """The tokens of N pairs.

        Args:
            pairs: the pairs.
            seen: texts already tokenized and their ids, which grows by the texts of these pairs.

        Raises:
            PairError: a text that holds half of a surrogate pair; the message says which.
        """
        template = self._template
        if template is None or not pairs:
            return tokenize(self._tokenizer, pairs, max_length=self._max_length)
        ids = self._texts(pairs, {} if seen is None else seen)
        room = max(0, self._max_length - template.special_tokens)
        left = self._tokenizer.truncation_side == "left"
        input_ids, type_ids, truncated = [], [], 0
        for query, document in pairs:
            first, second = ids[query], ids[document]
            if len(first) + len(second) > room:
                truncated += 1
                sizes = _longest_first(len(first), len(second), room)
                first, second = (
                    text[len(text) - size :] if left else text[:size]
                    for text, size in zip((first, second), sizes, strict=True)
                )
            input_ids.append(template.ids(first, second))
            type_ids.append(template.type_ids(len(first), len(second)) or [])
        return TokenizedPairs(
            input_ids=input_ids,
            token_type_ids=None if template.types is None else type_ids,
            truncated_pairs=truncated,
        )

    def _texts(self, pairs: Sequence[tuple[str, str]], seen: dict[str, list[int]]) -> dict[str, list[int]]:
        """`seen`, with every text of these pairs in it, and of earlier ones as long as they are few."""
        texts = dict.fromkeys(text for pair in pairs for text in pair)
        if len(seen) > MOST_SEEN:
            seen.clear()
        unseen = [text for text in texts if text not in seen]
        if unseen:
            try:
                ids = self._ids(unseen)
            except TypeError:
                refuse_half_characters(pairs)
                raise
            seen.update(zip(unseen, ids, strict=True))
        return seen


def tokenize(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], *, max_length: int
) -> TokenizedPairs:
    """Tokenize all pairs in one batched call, with sentence-transformers' truncation ("longest_first").

    A Rust tokenizer asked to truncate also builds every overflowing piece of both texts, whose number is
    the product of their lengths: two texts of 100,000 characters cost seconds and gigabytes. So it is
    asked for the whole, and the cut is made here.

    Args:
        tokenizer: a transformers tokenizer.
        pairs: N pairs (query, document).
        max_length: the most tokens a pair may have; the longer of the two texts is cut first.

    Raises:
        PairError: a text that holds half of a surrogate pair; the message says which.
    """
    if not pairs:
        return TokenizedPairs(input_ids=[], token_type_ids=None, truncated_pairs=0)
    with tokenizer_lock(tokenizer):
        return _tokenize(tokenizer, pairs, max_length)


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_length: int
) -> TokenizedPairs:
    cut_here = tokenizer.is_fast
    try:
        encoded = tokenizer(
            [query for query, _ in pairs],
            [document for _, document in pairs],
            truncation=False if cut_here else "longest_first",
            max_length=None if cut_here else max_length,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )
    except TypeError:
        refuse_half_characters(pairs)
        raise
    input_ids: list[list[int]] = encoded["input_ids"]
    type_ids: list[list[int]] | None = encoded.get("token_type_ids")
    if not cut_here:
        full = [pair for pair, ids in zip(pairs, input_ids, strict=True) if len(ids) >= max_length]
        cut = sum(len(tokenizer(*pair, verbose=False)["input_ids"]) > max_length for pair in full)
        return TokenizedPairs(input_ids=input_ids, token_type_ids=type_ids, truncated_pairs=cut)
    long = [row for row, ids in enumerate(input_ids) if len(ids) > max_length]
    for row in long:
        kept = _kept_positions(encoded.sequence_ids(row), max_length, side=tokenizer.truncation_side)
        input_ids[row] = [input_ids[row][position] for position in kept]
        if type_ids is not None:
            type_ids[row] = [type_ids[row][position] for position in kept]
    return TokenizedPairs(input_ids=input_ids, token_type_ids=type_ids, truncated_pairs=len(long))


def _kept_positions(sequence_ids: list[int | None], max_length: int, *, side: str) -> list[int]:
    """Which tokens of a pair stay: all special ones, and each text's first (or last) few.

    Args:
        sequence_ids: which text each token is of, 0 or 1; None for a special token.
        max_length: tokens to keep, special ones included.
        side: which end of a text is cut, "right" or "left".
    """
    texts = [[p for p, text in enumerate(sequence_ids) if text == which] for which in (0, 1)]
    special = [p for p, text in enumerate(sequence_ids) if text is None]
    room = _longest_first(len(texts[0]), len(texts[1]), max(0, max_length - len(special)))
    cut = [
        text[:size] if side == "right" else text[len(text) - size :]
        for text, size in zip(texts, room, strict=True)
    ]
    return sorted([*special, *cut[0], *cut[1]])


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many of two texts' tokens fit: the longer gives way until both are equal, an odd one is its."""
    short, long = sorted((first, second))
    if first + second > room:
        long = max(short, room - short)
        if short + long > room:
            short, long = room // 2, room - room // 2
    return (long, short) if first > second else (short, long)
