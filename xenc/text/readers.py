"""How a request's pairs become tokens: as two texts, in a chat template, or in a T5's prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import ref

from transformers import PreTrainedTokenizerBase

from .prompts import FirstStep, read_prompts
from .tokens import PairTokenizer, TokenizedPairs

Pairs = Sequence[tuple[str, str]]
Tokenize = Callable[[Pairs], TokenizedPairs]


class Reader(ABC):
    """Tokenizes the pairs of one model."""

    @abstractmethod
    def for_request(self, prompt: str | None) -> Tokenize:
        """What tokenizes the pairs of one request, some at a time.

        Args:
            prompt: sentence-transformers' prompt for the request, or None.
        """


class PairReader(Reader):
    """Two texts, joined by the tokenizer; a prompt stands in front of the first.

    Args:
        tokenizer: the model's.
        max_length: where pairs are cut, in tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenize = PairTokenizer(tokenizer, max_length)

    def for_request(self, prompt: str | None) -> Tokenize:
        """See `Reader`; a text that stands in many pairs of the request is tokenized once."""
        tokenize = partial(self._tokenize, seen={})
        if not prompt:
            return tokenize
        return lambda pairs: tokenize([(prompt + query, document) for query, document in pairs])


class ChatReader(Reader):
    """A causal reranker's chat template, applied by sentence-transformers' own preprocessing.

    Whether a row that fills max_length lost tokens cannot be known; it is counted as if it had.

    Args:
        cross_encoder: whose preprocessing; only a request in flight keeps it alive.
        max_length: where pairs are cut, in tokens.
    """

    def __init__(self, cross_encoder: Any, max_length: int) -> None:
        self._cross_encoder, self._max_length = ref(cross_encoder), max_length

    def for_request(self, prompt: str | None) -> Tokenize:
        """See `Reader`; the prompt is the instruction of the template."""
        cross_encoder = self._cross_encoder()
        assert cross_encoder is not None
        return partial(self._read, cross_encoder.preprocess, prompt)

    def _read(self, preprocess: Callable[..., Any], prompt: str | None, pairs: Pairs) -> TokenizedPairs:
        features = preprocess(list(pairs), prompt=prompt)
        padded = zip(features["input_ids"].tolist(), features["attention_mask"].tolist(), strict=True)
        rows = [[token for token, real in zip(*row, strict=True) if real] for row in padded]
        truncated = sum(len(row) >= self._max_length for row in rows)
        return TokenizedPairs(input_ids=rows, token_type_ids=None, truncated_pairs=truncated)


class FirstStepReader(Reader):
    """A T5's prompt with both texts in it.

    Args:
        first_step: holds the prompt.
        tokenizer: the model's.
        max_length: where documents are cut, in tokens of the whole prompt.
    """

    def __init__(self, first_step: FirstStep, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._first_step, self._tokenizer, self._max_length = first_step, tokenizer, max_length

    def for_request(self, prompt: str | None) -> Tokenize:
        """See `Reader`; sentence-transformers' prompt stands in front of the query."""
        return partial(self._read, prompt or "")

    def _read(self, prompt: str, pairs: Pairs) -> TokenizedPairs:
        prompted = [(prompt + query, document) for query, document in pairs]
        return read_prompts(self._first_step, self._tokenizer, self._max_length, prompted)
