"""Which inputs are pairs of two strings, and what is wrong with the others once they have been refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any

from ..errors import PairError, XencError, of_both_kinds


def as_list(inputs: Any, *, single: bool) -> list[Any]:
    """One input, or a collection of them, as a list of inputs."""
    listed = inputs.tolist() if type(inputs).__name__ == "ndarray" else inputs
    return [listed] if single else list(listed)


def as_pairs(inputs: Sequence[Any]) -> list[tuple[str, str]] | None:
    """The inputs as tuples; None unless each is a pair of two strings.

    What else there may be (a text, a chat, an image), sentence-transformers scores or refuses.
    """
    pairs: list[tuple[str, str]] = []
    for pair in inputs:
        is_pair = _is_sequence(pair) and len(pair) == 2
        if not (is_pair and isinstance(pair[0], str) and isinstance(pair[1], str)):
            return None
        pairs.append((pair[0], pair[1]))
    return pairs


@contextmanager
def faults_named(inputs: Sequence[Any]) -> Iterator[None]:
    """Tokenize or score within: what refuses an input that no cross-encoder can score raises a PairError.

    Raises:
        PairError: which is also the error that was raised; the message gives the input's index and value.
    """
    try:
        yield
    except XencError:  # perhaps a ValueError itself
        raise
    except (TypeError, ValueError) as error:
        faults = (fault for index, given in enumerate(inputs) if (fault := _fault(index, given)))
        said = next(faults, None)
        if said is None:
            raise
        raise of_both_kinds(PairError(said), error) from error


def _fault(index: int, given: Any) -> str | None:
    """Why an input cannot be scored; None if it may be multimodal (a dict, an image, an array) or is fine."""
    several = _is_sequence(given)
    texts = list(given) if several else [given]
    expected = "expected a pair of two strings (query, document)"
    if several and len(texts) != 2 and all(isinstance(text, str) for text in texts):
        return f"input {index} is {len(texts)} texts; {expected}."
    where = f"pair {index} holds" if several else f"input {index} is"
    for text in texts:
        if isinstance(text, (bytes, Number, type(None))):
            remedy = "decode it first" if isinstance(text, bytes) else "use '' for an empty text"
            return f"{where} {_shown(text)}, which is not a string: {remedy if several else expected}."
        if isinstance(text, str) and (half := _half_character(text)):
            return f"{where} {half!r}, half of a character: decode the text with errors='replace'."
    return None


def _half_character(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return text[error.start]
    return None


def _is_sequence(given: Any) -> bool:
    return isinstance(given, (list, tuple)) or (type(given).__name__ == "ndarray" and given.ndim == 1)


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
