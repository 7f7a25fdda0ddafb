"""How other pairs than of two texts become tokens: in a chat template, or in a T5's prompt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ref

from transformers import PreTrainedTokenizerBase

from .prompts import FirstStep, read_prompts
from .tokens import PairReader, Pairs, Tokenize, TokenizedPairs, prompted


class ChatReader:
    """Reads a pair in a causal reranker's chat template, by sentence-transformers' own preprocessing.

    A row of max_length tokens is counted as truncated: whether it was cannot be known.

    Args:
        cross_encoder: the model that preprocesses; only a request being scored keeps it alive.
        max_length: the most tokens a pair may have.
    """

    def __init__(self, cross_encoder: Any, max_length: int) -> None:
        self._cross_encoder, self._max_length = ref(cross_encoder), max_length

    def for_request(self, prompt: str | None) -> Tokenize:
        """See `PairReader`; the prompt is the template's instruction."""
        cross_encoder = self._cross_encoder()
        assert cross_encoder is not None
        return partial(self._read, cross_encoder.preprocess, prompt)

    def _read(self, preprocess: Callable[..., Any], prompt: str | None, pairs: Pairs) -> TokenizedPairs:
        features = preprocess(list(pairs), prompt=prompt)
        padded = zip(features["input_ids"].tolist(), features["attention_mask"].tolist(), strict=True)
        rows = [[token for token, real in zip(*row, strict=True) if real] for row in padded]
        return TokenizedPairs(
            input_ids=rows, truncated_pairs=sum(len(row) >= self._max_length for row in rows)
        )


class FirstStepReader:
    """Reads a pair in a T5's prompt, cut to max_length tokens with the prompt. See `prompts.read_prompts`."""

    def __init__(self, first_step: FirstStep, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._read = partial(read_prompts, first_step, tokenizer, max_length)

    def for_request(self, prompt: str | None) -> Tokenize:
        """See `PairReader`; sentence-transformers' prompt stands before the query."""
        return lambda pairs: self._read(prompted(prompt or "", pairs))


Reader = PairReader | ChatReader | FirstStepReader
