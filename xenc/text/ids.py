"""Texts -> token ids without special tokens, from the tokenizer's Rust backend where the ids are the same.

Called through transformers, the backend also computes each token's offsets, and every field of an encoding
becomes a Python list. That holds the interpreter's lock longer than the rest of tokenizing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from .template import tokenizer_lock

_ENCODING: Final = ("__call__", "_encode_plus", "_convert_encoding", "set_truncation_and_padding")
"""Methods through which transformers encodes texts. A tokenizer that overrides one is called as usual."""

_PROBES: Final = ("a b", "", "A\u00e9 \u673a\u5668 1,000")


class TextIds:
    """Token ids of texts, for one caller at a time.

    As after a normal call, the tokenizer is left without padding and truncation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        probes = [*_PROBES, " ".join(["a", *tokenizer.all_special_tokens, "b"])]
        with tokenizer_lock(tokenizer):
            self._agree = False
            with suppress(Exception):  # a tokenizer without an unknown token fails on a probe
                self._agree = is_unmodified(tokenizer) and self._by_backend(probes) == self._by_call(probes)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of N >= 1 texts.

        Raises:
            TypeError: the tokenizer's own, for a text that is not a string or holds half of a surrogate pair.
        """
        with tokenizer_lock(self._tokenizer):
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
