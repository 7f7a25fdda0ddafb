"""How a tokenizer joins two texts: the special tokens around them, inferred from an example.

With it, a text that is in many pairs is tokenized once. Only tokenizers have one that put fixed tokens
before the first text, between the texts and after the second.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from transformers import BatchEncoding, PreTrainedTokenizerBase

_locks: Final[WeakKeyDictionary[PreTrainedTokenizerBase, threading.RLock]] = WeakKeyDictionary()
_making_a_lock: Final = threading.Lock()

_PROBES = (("a b", "b a"), ("", "a"), ("a", ""), ("", ""))


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


def tokenizer_lock(tokenizer: PreTrainedTokenizerBase) -> threading.RLock:
    """Hold it while calling a tokenizer: transformers keeps padding and truncation in the tokenizer."""
    with _making_a_lock:
        return _locks.setdefault(tokenizer, threading.RLock())


def pair_template(tokenizer: PreTrainedTokenizerBase) -> PairTemplate | None:
    """The tokenizer's template; None if it joins texts in another way, or is a slow (Python) tokenizer."""
    if not tokenizer.is_fast:
        return None
    with tokenizer_lock(tokenizer):
        encoded = tokenizer(*(list(texts) for texts in zip(*_PROBES, strict=True)), verbose=False)
        template = _read_off(encoded)
        if template is None:
            return None
        for row, probe in enumerate(_PROBES):
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
