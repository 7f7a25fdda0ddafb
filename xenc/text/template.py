"""How a tokenizer joins two texts: the special tokens around them, read off one example.

With it a text that stands in many pairs is tokenized once. Only tokenizers that join by position are taken:
fixed tokens before the first text, between the two and behind the second.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

_locks: Final[WeakKeyDictionary[PreTrainedTokenizerBase, threading.RLock]] = WeakKeyDictionary()
_making_a_lock: Final = threading.Lock()

_PROBES = (("a b", "b a"), ("", "a"), ("a", ""), ("", ""))


@dataclass(frozen=True, kw_only=True)
class PairTemplate:
    """Token ids before, between and behind two texts, and the type ids of all.

    Attributes:
        before: ids in front of the first text.
        between: ids after the first text and before the second.
        behind: ids after the second text.
        types: the type ids of `before`, the first text's tokens, `between`, the second text's tokens and
            `behind`; or None for a model that takes none.
    """

    before: list[int]
    between: list[int]
    behind: list[int]
    types: tuple[list[int], int, list[int], int, list[int]] | None

    @property
    def special_tokens(self) -> int:
        """How many tokens a pair has beside its texts'."""
        return len(self.before) + len(self.between) + len(self.behind)

    def ids(self, first: list[int], second: list[int]) -> list[int]:
        """The token ids of a pair of tokenized texts."""
        return [*self.before, *first, *self.between, *second, *self.behind]

    def type_ids(self, first: int, second: int) -> list[int] | None:
        """The type ids of a pair of texts of so many tokens."""
        if self.types is None:
            return None
        before, of_first, between, of_second, behind = self.types
        return [*before, *[of_first] * first, *between, *[of_second] * second, *behind]


def tokenizer_lock(tokenizer: PreTrainedTokenizerBase) -> threading.RLock:
    """Held by whoever calls a tokenizer: transformers keeps padding and truncation in it, not in the call."""
    with _making_a_lock:
        return _locks.setdefault(tokenizer, threading.RLock())


def pair_template(tokenizer: PreTrainedTokenizerBase) -> PairTemplate | None:
    """The template a tokenizer follows; None if it follows none, or cannot say which token is whose."""
    if not tokenizer.is_fast:
        return None
    with tokenizer_lock(tokenizer):
        return _checked(tokenizer)


def _checked(tokenizer: PreTrainedTokenizerBase) -> PairTemplate | None:
    encoded = tokenizer(*(list(texts) for texts in zip(*_PROBES, strict=True)), verbose=False)
    template = _read_off(encoded, 0)
    if template is None:
        return None
    for row, (first, second) in enumerate(_PROBES):
        alone = tokenizer([first, second], add_special_tokens=False, verbose=False)["input_ids"]
        types = template.type_ids(*map(len, alone))
        if template.ids(*alone) != encoded["input_ids"][row]:
            return None
        if types is not None and types != encoded["token_type_ids"][row]:
            return None
    return template


def _read_off(encoded: object, row: int) -> PairTemplate | None:
    owners = encoded.sequence_ids(row)  # type: ignore[attr-defined]
    ids, types = encoded["input_ids"][row], encoded.get("token_type_ids")  # type: ignore[index,attr-defined]
    places = [[at for at, owner in enumerate(owners) if owner == text] for text in (0, 1)]
    if not all(places) or places[0][-1] > places[1][0]:
        return None
    (start, *_, end), (second_start, *_, second_end) = ([*place, place[-1]] for place in places)
    cuts = (slice(0, start), slice(end + 1, second_start), slice(second_end + 1, None))
    before, between, behind = (list(ids[cut]) for cut in cuts)
    if types is None:
        return PairTemplate(before=before, between=between, behind=behind, types=None)
    of_specials = [list(types[row][cut]) for cut in cuts]
    return PairTemplate(
        before=before, between=between, behind=behind,
        types=(of_specials[0], types[row][start], of_specials[1], types[row][second_start], of_specials[2]),
    )  # fmt: skip
