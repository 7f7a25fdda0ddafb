"""Ids from a tokenizer's Rust backend equal those of a call, and leave the tokenizer as a call does."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.bert.tokenization_bert import BertTokenizer

from correctness_tests import strategies
from xenc import PairError
from xenc.text.tokenizer import TextIds
from xenc.text.tokens import PairReader

lists_of_texts = st.lists(strategies.texts(), min_size=1, max_size=8)
SPECIAL = ["[CLS] a [SEP]", "<s> a </s>", "a[PAD]b", "[UNK]<unk>"]


def called(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]


def uses_its_backend(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether texts are tokenized without calling the tokenizer."""
    ids, calls = TextIds(tokenizer), []
    by_call = ids._by_call
    ids._by_call = lambda texts: calls.append(texts) or by_call(texts)
    assert ids(["a b", ""]) == called(tokenizer, ["a b", ""])
    return not calls


@pytest.fixture
def wordpiece(tiny) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny)


@given(texts=lists_of_texts)
@example(texts=SPECIAL)
@example(texts=["a", "a", ""])
def test_ids_are_those_of_a_call(tokenizer, texts):
    assert TextIds(tokenizer)(texts) == called(tokenizer, texts)


def test_rust_tokenizers_are_read_from_their_backend(tokenizer):
    assert uses_its_backend(tokenizer) == tokenizer.is_fast


class OfItsOwn(BertTokenizer):
    def _encode_plus(self, *args: Any, **kwargs: Any) -> Any:
        encoded = super()._encode_plus(*args, **kwargs)
        if "add_special_tokens" in kwargs:
            encoded["input_ids"] = [ids[::-1] for ids in encoded["input_ids"]]
        return encoded


def test_a_class_that_encodes_texts_in_its_own_way_is_called(wordpiece):
    own = OfItsOwn(tokenizer_object=wordpiece.backend_tokenizer)
    assert not uses_its_backend(own)
    assert TextIds(own)(["one two three"]) == [called(wordpiece, ["one two three"])[0][::-1]]


def test_a_method_that_is_replaced_later_is_called(wordpiece):
    ids, encode = TextIds(wordpiece), wordpiece._encode_plus
    wordpiece._encode_plus = lambda text, **kwargs: encode([each + " b" for each in text], **kwargs)
    assert ids(["a"]) == called(wordpiece, ["a"])


def test_a_tokenizer_with_a_mode_for_inputs_or_a_backend_with_other_ids_is_called(wordpiece, monkeypatch):
    assert uses_its_backend(wordpiece)
    with monkeypatch.context() as patch:
        patch.setattr(TextIds, "_by_backend", lambda _, texts: [[0]] * len(texts))
        assert not uses_its_backend(wordpiece)
    wordpiece._switch_to_input_mode = lambda: None
    assert not uses_its_backend(wordpiece)


OTHERS: dict[str, Callable[[PreTrainedTokenizerBase], object]] = {
    "pads and cuts": lambda it: it(["a", "b c " * 9], padding=True, truncation=True, max_length=5),
    "pads the backend": lambda it: it.backend_tokenizer.enable_padding(length=11),
    "cuts the backend": lambda it: it.backend_tokenizer.enable_truncation(3),
    "splits special tokens": lambda it: setattr(it, "split_special_tokens", True),
    "splits them in one call": lambda it: it(["a"], split_special_tokens=True),
}


def state(tokenizer: PreTrainedTokenizerBase) -> tuple[object, ...]:
    """What one user of a tokenizer leaves to the next."""
    backend = tokenizer.backend_tokenizer
    return backend.to_str(), backend.encode_special_tokens, tokenizer.deprecation_warnings


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_another_user_of_the_tokenizer_set_changes_neither_ids_nor_what_is_left(tiny, other):
    read, asked = (AutoTokenizer.from_pretrained(tiny) for _ in range(2))
    ids = TextIds(read)
    other(read)
    other(asked)
    texts, found = [*SPECIAL, "b c " * 9], state(read)
    assert ids(texts) == called(asked, texts)
    assert state(read) == (found[0], *state(asked)[1:])


@pytest.mark.parametrize("texts", [["\ud800"], ["fine", "\ud800"], ["a", 3], [3], [None], [b"a"]], ids=repr)
def test_what_is_no_text_is_refused_as_a_call_does(wordpiece, texts):
    with pytest.raises((TypeError, ValueError)) as expected:
        called(wordpiece, texts)
    with pytest.raises(expected.type, match=f"^{re.escape(str(expected.value))}$"):
        TextIds(wordpiece)(texts)


def test_half_a_character_is_named(wordpiece):
    with pytest.raises(PairError, match=r"pair 1 holds '\\udc00', half of a character"):
        PairReader(wordpiece, 64).read([("a", "b"), ("c", "d \udc00")], {})


def test_a_tokenizer_that_has_no_token_for_what_it_does_not_know_can_be_used():
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert TextIds(letters)(["a b", "b"]) == [[0, 1], [1]]
