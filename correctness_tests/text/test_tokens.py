"""Tokens of many pairs equal those of each pair alone, and truncated pairs are counted."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from correctness_tests import strategies
from xenc.text.pairs import as_pairs
from xenc.text.tokens import PairReader, tokenize

HUGE = "word " * 20_000

# around the point where the longer of two texts has been cut to the shorter one's size
LENGTHS = [(40, 30), (30, 41), (50, 50), (20, 60), (60, 20), (31, 31), (30, 30), (100, 29), (31, 30)]

max_lengths = st.sampled_from([3, 4, 5, 16, 63, 64])


def text_by_text(tokenizer, pairs, *, max_length: int):
    return PairReader(tokenizer, max_length).read(pairs, {})


both_ways = pytest.mark.parametrize("tokenize", [tokenize, text_by_text], ids=["jointly", "text by text"])


def alone(tokenizer, pair: tuple[str, str], **kwargs) -> dict[str, list[int]]:
    """One pair's encoding; called with lists, since a call with two texts drops an empty document."""
    encoded = tokenizer([pair[0]], [pair[1]], **kwargs)
    return {name: rows[0] for name, rows in encoded.items()}


@given(pairs=strategies.lists_of_pairs(), max_length=max_lengths)
@example(pairs=[("", "")], max_length=64)
@example(pairs=[("question", "")], max_length=64)
@example(pairs=[(HUGE, "short"), ("short", HUGE)], max_length=64)
@example(pairs=[("a " * left, "b " * right) for left, right in LENGTHS], max_length=64)
@example(pairs=[("a " * left, "b " * right) for left, right in LENGTHS], max_length=63)
@strategies.FEW
@both_ways
def test_ids_and_types_are_those_of_each_pair_alone_and_longer_pairs_count_as_truncated(
    tokenizer, tokenize, pairs, max_length
):
    # as short as the special tokens of this tokenizer
    max_length = max(max_length, tokenizer.num_special_tokens_to_add(pair=True))
    tokens = tokenize(tokenizer, pairs, max_length=max_length)
    longer = sum(len(alone(tokenizer, pair)["input_ids"]) > max_length for pair in pairs)
    assert tokens.truncated_pairs == longer
    for index, pair in enumerate(pairs):
        expected = alone(tokenizer, pair, truncation="longest_first", max_length=max_length)
        assert tokens.input_ids[index] == expected["input_ids"]
        if tokens.token_type_ids is not None:
            assert tokens.token_type_ids[index] == expected["token_type_ids"]
    assert (tokens.token_type_ids is None) == ("token_type_ids" not in expected)
    assert tokens.counts == [len(ids) for ids in tokens.input_ids]


@pytest.mark.parametrize(("words", "truncated"), [(7, 0), (8, 0), (9, 1)])
@both_ways
def test_a_pair_of_exactly_max_length_is_not_truncated(tokenize, tiny, words, truncated):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokens = tokenize(tokenizer, [("a", "a " * (words - 1))], max_length=8 + 3)
    assert tokens.counts == [min(words, 8) + 3]
    assert tokens.truncated_pairs == truncated


@both_ways
def test_two_texts_of_a_hundred_thousand_characters_cost_no_more_than_reading_them(tokenize, tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]  # MiB
    tokens = tokenize(tokenizer, [(HUGE, HUGE)] * 4, max_length=64)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert tokens.counts == [64] * 4
    assert tokens.truncated_pairs == 4
    assert peaks[1] - peaks[0] < 1000  # building what was cut off took 4,700 MiB for one such pair


@pytest.mark.parametrize("side", ["left", "right"])
@both_ways
def test_texts_are_cut_on_the_tokenizers_side(tokenize, tiny, side):
    tokenizer = AutoTokenizer.from_pretrained(tiny, truncation_side=side)
    pairs = [("one two three four five " * 9, "six seven eight " * 9)]
    expected = alone(tokenizer, pairs[0], truncation="longest_first", max_length=20)
    assert tokenize(tokenizer, pairs, max_length=20).input_ids == [expected["input_ids"]]


@both_ways
def test_no_pairs_are_no_tokens(tokenize, tokenizer):
    tokens = tokenize(tokenizer, [], max_length=64)
    assert (tokens.input_ids, tokens.truncated_pairs, tokens.counts) == ([], 0, [])


@given(pairs=strategies.lists_of_pairs())
@strategies.FEW
def test_tokenizing_leaves_the_tokenizer_without_padding_or_truncation(tiny, pairs):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    before = tokenizer(["a b c"], ["d " * 100])["input_ids"]
    tokenize(tokenizer, pairs, max_length=16)
    assert tokenizer(["a b c"], ["d " * 100])["input_ids"] == before


def test_pairs_come_back_as_tuples_of_strings():
    given_pairs = [("a", "b"), ["c", "d"], np.array(["e", "f"])]
    assert as_pairs(given_pairs) == [("a", "b"), ("c", "d"), ("e", "f")]


@pytest.mark.parametrize(
    "other",
    ["text", ("a",), ("a", "b", "c"), ("a", None), ("a", b"b"), None, {"image": "x"}, ("a", {"image": "x"}),
     object(), ("a", np.zeros(3)), np.array("text"), np.zeros((2, 2))],
)  # fmt: skip
def test_one_input_that_is_no_pair_of_texts_leaves_all_to_sentence_transformers(other):
    assert as_pairs([("fine", "pair"), other]) is None
