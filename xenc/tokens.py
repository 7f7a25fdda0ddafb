"""Pairs of texts -> token ids and true counts. No padding, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

from transformers import PreTrainedTokenizerBase

from .errors import PairError

Pair = tuple[str, str] | list[str]


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


def check_pairs(pairs: Sequence[Any]) -> list[tuple[str, str]] | None:
    """Check that every input is a pair of two strings.

    Returns:
        The pairs as tuples; or None if some input is multimodal (a dict, an image, an array), which is
        for sentence-transformers to score or to refuse.

    Raises:
        PairError: an input that no cross-encoder can score. The message names it and its index.
    """
    checked: list[tuple[str, str]] = []
    for index, pair in enumerate(pairs):
        is_pair = isinstance(pair, (list, tuple)) or type(pair).__name__ == "ndarray"
        if is_pair and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str):
            checked.append((pair[0], pair[1]))
            continue
        _refuse_unless_multimodal(index, pair, is_pair=is_pair)
        return None
    return checked


def _refuse_unless_multimodal(index: int, pair: Any, *, is_pair: bool) -> None:
    if not is_pair and not isinstance(pair, (str, bytes, Number, type(None))):
        return
    if is_pair and len(pair) == 2:
        wrong = [text for text in pair if isinstance(text, (bytes, Number, list, tuple, type(None)))]
        if not wrong:
            return
        remedy = "decode it first" if isinstance(wrong[0], bytes) else "use '' for an empty text"
        raise PairError(f"pair {index} holds {_shown(wrong[0])}, which is not a string: {remedy}.")
    held = f"{len(pair)} texts" if is_pair else _shown(pair)
    raise PairError(f"input {index} is {held}; expected a pair of two strings (query, document).")


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


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
        _refuse_half_characters(pairs)
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


def _refuse_half_characters(pairs: Sequence[tuple[str, str]]) -> None:
    """A Python string may hold half of a surrogate pair, which no encoding and no tokenizer has."""
    for index, texts in enumerate(pairs):
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise PairError(
                    f"pair {index} holds {text[error.start]!r}, half of a character: decode the text with "
                    "errors='replace'."
                ) from error
