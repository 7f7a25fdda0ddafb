"""Texts -> token ids without special tokens, by the tokenizer's Rust backend where that gives the same.

Asked through transformers, the backend also computes where in its text each token stands, and everything it
knows of a token becomes a Python list. That holds the interpreter's lock longer than all else of tokenizing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from .template import tokenizer_lock

_ENCODING: Final = ("__call__", "_encode_plus", "_convert_encoding", "set_truncation_and_padding")
"""Methods through which transformers encodes texts; a tokenizer with its own may do anything in them."""

_PROBES: Final = ("a b", "", "A\u00e9 \u673a\u5668 1,000")


class TextIds:
    """Reads ids of texts, one caller at a time.

    It leaves the tokenizer as a call of it does: without padding and truncation.

    Args:
        tokenizer: a transformers tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        probes = [*_PROBES, " ".join(["a", *tokenizer.all_special_tokens, "b"])]
        with tokenizer_lock(tokenizer):
            self._agree = _is_backend_alone(tokenizer) and self._agrees_on(probes)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of N >= 1 texts.

        Raises:
            TypeError: what the tokenizer says of a text that is none, or holds half of a surrogate pair.
        """
        with tokenizer_lock(self._tokenizer):
            if not (self._agree and _is_backend_alone(self._tokenizer)):
                return self._by_call(texts)
            try:
                return self._by_backend(texts)
            except TypeError:
                return self._by_call(texts)  # which says what is wrong with them

    def _agrees_on(self, probes: Sequence[str]) -> bool:
        try:
            return self._by_backend(probes) == self._by_call(probes)
        except Exception:  # a tokenizer without a token for what it does not know has an error of its own
            return False

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


def _is_backend_alone(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether no class, and nobody since, has given a tokenizer another way to encode texts."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or hasattr(tokenizer, "_switch_to_input_mode"):
        return False
    return all(
        getattr(getattr(tokenizer, name), "__func__", None) is getattr(PreTrainedTokenizerFast, name)
        for name in _ENCODING
    )
