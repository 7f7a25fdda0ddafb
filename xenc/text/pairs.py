"""Checks that every input is a pair of two strings before work begins; errors name the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any

from ..errors import PairError


def as_list(inputs: Any, *, single: bool) -> list[Any]:
    """One pair, or a collection of them, as a list of pairs."""
    listed = inputs.tolist() if type(inputs).__name__ == "ndarray" else inputs
    return [listed] if single else list(listed)


def check_pairs(pairs: Sequence[Any]) -> list[tuple[str, str]] | None:
    """Check that every input is a pair of two strings.

    Returns:
        The pairs as tuples; None if an input may be multimodal (a dict, an image, an array): then
        sentence-transformers scores or refuses them.

    Raises:
        PairError: an input that no cross-encoder can score; the message gives its index and value.
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


@contextmanager
def half_characters_refused(pairs: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Tokenize within: a TypeError for half of a surrogate pair becomes a PairError.

    Raises:
        PairError: a text holds half of a surrogate pair; the message gives its index.
    """
    try:
        yield
    except TypeError:
        for index, text in ((index, text) for index, texts in enumerate(pairs) for text in texts):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise PairError(
                    f"pair {index} holds {text[error.start]!r}, half of a character: decode the text with "
                    "errors='replace'."
                ) from error
        raise
