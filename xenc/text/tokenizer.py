"""What a tokenizer does to texts: the ids of each, and the special tokens that join two of them.

With these two a text that is in many pairs is tokenized once. How texts are joined is inferred from examples:
only some tokenizers put fixed tokens before the first text, between the texts and after the second.

Ids come from the tokenizer's Rust backend where they are the same. Called through transformers, the backend
also computes each token's offsets, and every field of an encoding becomes a Python list. That holds the
interpreter's lock longer than the rest of tokenizing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from ..forks import renewed_in_a_child

_locks: Final[WeakKeyDictionary[PreTrainedTokenizerBase, threading.RLock]] = WeakKeyDictionary()
_making_a_lock: Final = renewed_in_a_child(threading.Lock())


def tokenizer_lock(tokenizer: PreTrainedTokenizerBase) -> threading.RLock:
    """Hold it while calling a tokenizer: transformers keeps padding and truncation in the tokenizer."""
    with _making_a_lock:
        if tokenizer not in _locks:
            _locks[tokenizer] = renewed_in_a_child(threading.RLock())
        return _locks[tokenizer]


_forking: Final = threading.local()


def _wait_for_tokenizers() -> None:
    """A backend has a lock of its own that no child could free, so a fork waits until none is in use."""
    _forking.locks = tuple(_locks.values())
    for lock in _forking.locks:
        lock.acquire()


def _go_on() -> None:
    for lock in _forking.locks:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_tokenizers, after_in_parent=_go_on)


@contextmanager
def borrowed(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Call a tokenizer within: its lock is held, and the settings of its backend are put back.

    They are saved with a model, and somebody may call the backend.
    """
    with tokenizer_lock(tokenizer):
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            yield
            return
        truncation, padding = backend.truncation, backend.padding
        try:
            yield
        finally:
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
            backend.no_padding() if padding is None else backend.enable_padding(**padding)


def leave_as_sentence_transformers(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer's backend the settings that scoring by sentence-transformers leaves in it."""
    with tokenizer_lock(tokenizer):
        tokenizer([("", "")], padding=True, truncation="longest_first", verbose=False)


_ENCODING: Final = ("__call__", "_encode_plus", "_convert_encoding", "set_truncation_and_padding")
"""Methods through which transformers encodes texts. A tokenizer that overrides one is called as usual."""

_TEXTS: Final = ("a b", "", "A\u00e9 \u673a\u5668 1,000")


class TextIds:
    """Token ids of texts, for one caller at a time."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        probes = [*_TEXTS, " ".join(["a", *tokenizer.all_special_tokens, "b"])]
        with borrowed(tokenizer):
            self._agree = False
            with suppress(Exception):  # a tokenizer without an unknown token fails on a probe
                self._agree = is_unmodified(tokenizer) and self._by_backend(probes) == self._by_call(probes)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of N >= 1 texts.

        Raises:
            TypeError: the tokenizer's own, for a text that is not a string or holds half of a surrogate pair.
        """
        with borrowed(self._tokenizer):
            if self._agree and is_unmodified(self._tokenizer):
                with suppress(TypeError):  # the call below raises it with transformers' message
                    return self._by_backend(texts)
            return self._by_call(texts)

    def _by_call(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer(
            list(texts), add_special_tokens=False, padding=False, truncation=False,
            return_attention_mask=False, return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _by_backend(self, texts: Sequence[str]) -> list[list[int]]:
        tokenizer = self._tokenizer
        backend: Tokenizer = tokenizer.backend_tokenizer
        tokenizer.set_truncation_and_padding(
            padding_strategy=PaddingStrategy.DO_NOT_PAD,
            truncation_strategy=TruncationStrategy.DO_NOT_TRUNCATE,
            max_length=None, stride=0, pad_to_multiple_of=None, padding_side=None,
        )  # fmt: skip
        if backend.encode_special_tokens != tokenizer.split_special_tokens:
            backend.encode_special_tokens = tokenizer.split_special_tokens
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def is_unmodified(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a fast tokenizer encodes texts by transformers' own methods, not overridden or replaced."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or hasattr(tokenizer, "_switch_to_input_mode"):
        return False
    return all(
        getattr(getattr(tokenizer, name), "__func__", None) is getattr(PreTrainedTokenizerFast, name)
        for name in _ENCODING
    )


_PAIRS: Final = (("a b", "b a"), ("", "a"), ("a", ""), ("", ""))


@dataclass(frozen=True, kw_only=True)
class PairTemplate:
    """Token ids before, between and after two texts.

    Attributes:
        before, between, after: ids of the special tokens.
        types: the type ids of `before`, of each token of the first text, of `between`, of each token of the
            second text, of `after`; None for a model without token types.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[list[int], int, list[int], int, list[int]] | None

    def ids(self, first: list[int], second: list[int]) -> list[int]:
        """The token ids of a pair of tokenized texts."""
        return [*self.before, *first, *self.between, *second, *self.after]

    def type_ids(self, first: int, second: int) -> list[int] | None:
        """The type ids of a pair, given the token counts of its texts."""
        if self.types is None:
            return None
        before, of_first, between, of_second, after = self.types
        return [*before, *[of_first] * first, *between, *[of_second] * second, *after]


def pair_template(tokenizer: PreTrainedTokenizerBase) -> PairTemplate | None:
    """The tokenizer's template; None if it joins texts in another way, or is a slow (Python) tokenizer."""
    if not tokenizer.is_fast:
        return None
    with borrowed(tokenizer):
        encoded = tokenizer(*(list(texts) for texts in zip(*_PAIRS, strict=True)), verbose=False)
        template = _read_off(encoded)
        if template is None:
            return None
        for row, probe in enumerate(_PAIRS):
            alone = tokenizer(list(probe), add_special_tokens=False, verbose=False)["input_ids"]
            types = template.type_ids(*map(len, alone))
            expected = encoded["input_ids"][row], types and encoded["token_type_ids"][row]
            if (template.ids(*alone), types) != expected:
                return None
        return template


def _read_off(encoded: BatchEncoding) -> PairTemplate | None:
    """The template that the first probe follows."""
    owners, ids = encoded.sequence_ids(0), encoded["input_ids"][0]
    first, second = ([at for at, owner in enumerate(owners) if owner == text] for text in (0, 1))
    if not first or not second or first[-1] > second[0]:
        return None
    cuts = (slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None))
    before, between, after = (list(ids[cut]) for cut in cuts)
    types = None
    if "token_type_ids" in encoded:
        row = encoded["token_type_ids"][0]
        of_before, of_between, of_after = (list(row[cut]) for cut in cuts)
        types = (of_before, row[first[0]], of_between, row[second[0]], of_after)
    return PairTemplate(before=before, between=between, after=after, types=types)
