"""Long documents: windows cover the text, carry the query and fit; and what becomes of their scores."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import sentence_transformers
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, CanineTokenizer

import xenc
from correctness_tests.models.test_causal import make as make_causal
from correctness_tests.scoring import assert_close, logits, nothing_compiles, on_cpu
from perf_tests.long_documents import answers_first
from perf_tests.workloads import sentences
from xenc import DEFAULT_MODEL, ModelError, PairError
from xenc.text.tokens import PairReader
from xenc.text.windows import FEWEST_TOKENS, OVERLAP, SPARE_TOKENS, windows_of

WORDS = ["How", "does", "Python", "look", "up", "names", "in", "a", "block", "that", "binds", "them"]
PAIRS = [
    ("How does Python look up names?", " ".join(sentences()[:30])),
    ("a short one", "fits"),
    ("", "Names are bound. " * 40),
    ("a query that leaves no room " * 20, "Names are bound. " * 40),
]
MAX_LENGTH = 64


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny)


def cut(tokenizer, pairs, max_length, *, first=False):
    return windows_of(
        pairs, PairReader(tokenizer, 10**6).for_request(None), tokenizer, max_length, first=first
    )


@given(
    words=st.lists(st.sampled_from(WORDS), max_size=150), asked=st.integers(0, 12), most=st.integers(25, 90)
)
def test_windows_cover_the_document_overlap_carry_the_query_and_fit(tokenizer, words, asked, most):
    # numbered, so that a window's text stands in one place
    query, document = " ".join(WORDS[:asked]), " ".join(f"{word} {at}" for at, word in enumerate(words))
    made = cut(tokenizer, [(query, document)], most)
    counts = PairReader(tokenizer, 10**6).for_request(None)(made.pairs).counts
    assert max(counts) <= most
    assert made.counts == [len(made.pairs)]
    assert {each for each, _ in made.pairs} == {query}
    if len(made.pairs) == 1:
        assert made.pairs == [(query, document)]
        return
    spans, begin = [], 0
    for _, part in made.pairs:
        begin = document.index(part, begin)
        spans.append((begin, begin + len(part)))
        begin += 1
    assert spans[0][0] == 0
    assert spans[-1][1] == len(document)
    assert all(later < end for (_, end), (later, _) in pairwise(spans))


def test_windows_are_as_long_as_fits_and_a_quarter_of_each_is_in_the_next(tokenizer):
    document = " ".join("ab"[number % 2] for number in range(200))
    made = cut(tokenizer, [("a b", document)], MAX_LENGTH)
    room = MAX_LENGTH - 2 - 3 - SPARE_TOKENS  # of the query, and special tokens
    lengths = [len(part.split()) for _, part in made.pairs]
    assert set(lengths) == {room}
    step = room - room // OVERLAP
    assert len(lengths) == 1 + -(-(200 - room) // step)


def test_a_query_that_leaves_no_room_and_a_pair_that_fits_stay_as_they_are(tokenizer):
    made = cut(tokenizer, PAIRS, MAX_LENGTH)
    assert [made.counts[1], made.counts[3]] == [1, 1]
    assert made.pairs[made.counts[0]] == PAIRS[1]
    assert made.pairs[-1] == PAIRS[3]
    assert min(made.counts[0], made.counts[2]) > 2
    assert cut(tokenizer, PAIRS, MAX_LENGTH, first=True).pairs[0] == made.pairs[0]
    assert FEWEST_TOKENS > 0


def by_hand(model, made, how, **options):
    """Each window alone through sentence-transformers; how their logits become one, written out."""
    plain = sentence_transformers.CrossEncoder(modules=list(model), device="cpu")
    each = np.array([logits(plain, pair, **options) for pair in made.pairs])
    join = {"max": np.max, "mean": np.mean, "first": lambda part, axis: part[0]}[how]
    parts = np.split(each, np.cumsum(made.counts)[:-1])
    return np.array([join(part, axis=0) for part in parts])


@pytest.mark.parametrize("execution", ["packed-eager", "sdpa-sorted"])
@pytest.mark.parametrize("how", ["max", "mean", "first"])
@pytest.mark.parametrize("checkpoint", ["tiny", "three_labels"])
def test_the_score_is_that_of_the_windows(request, checkpoint, how, execution):
    model = on_cpu(request.getfixturevalue(checkpoint), execution, long_documents=how, max_length=MAX_LENGTH)
    made = cut(model.tokenizer, PAIRS, MAX_LENGTH, first=how == "first")
    expected = by_hand(model, made, how)
    assert expected.std() > 0.1
    assert_close(logits(model, PAIRS), expected)
    report = model.last_report
    assert (report.pairs, report.windows) == (len(PAIRS), len(made.pairs))
    assert len(report.token_counts) == len(made.pairs)
    assert_close(logits(model, PAIRS[0]), expected[0])
    assert_close(model.submit(PAIRS, activation_fn=torch.nn.Identity()).result(), expected)


def test_compiled_nothing_compiles_and_ranking_uses_the_best_window(one_layer):
    model = on_cpu(one_layer, xenc.Execution(strict=True), long_documents="max", max_length=MAX_LENGTH)
    model.warmup()
    with nothing_compiles():
        scores = model.predict(PAIRS)
        ranked = model.rank(PAIRS[0][0], [document for _, document in PAIRS[:3]])
    expected = model.predict([(PAIRS[0][0], document) for _, document in PAIRS[:3]])
    assert len(scores) == len(PAIRS)
    assert [each["corpus_id"] for each in ranked] == list(np.argsort(-expected))


def test_a_prompt_and_a_chat_template_take_room_too(tmp_path):
    checkpoint = make_causal(tmp_path)
    model = on_cpu(checkpoint, "packed-eager", long_documents="max")
    pairs = [("a question", " ".join(sentences()[:40]))]
    scores = logits(model, pairs, prompt="Judge this: ")
    assert model.last_report.windows > 1
    assert model.last_report.truncated_pairs == 0
    tokenize = model.pipeline.reader.for_request("Judge this: ")
    made = windows_of(pairs, tokenize, model.tokenizer, 128, first=False)
    assert_close(scores, by_hand(model, made, "max", prompt="Judge this: "))


def test_cut_is_as_in_sentence_transformers_and_the_attribute_may_be_changed(tiny):
    model, plain = on_cpu(tiny, max_length=64), sentence_transformers.CrossEncoder(str(tiny), max_length=64)
    assert_close(logits(model, PAIRS), logits(plain, PAIRS))
    assert model.last_report.windows == 0
    model.long_documents = "max"
    assert np.abs(logits(model, PAIRS) - logits(plain, PAIRS)).max() > 0.1


def test_what_cannot_be_done_is_refused_by_name(tiny, tokenizer):
    with pytest.raises(ModelError, match="long_documents='best': choose one of cut, first, max, mean"):
        on_cpu(tiny, long_documents="best")
    model = on_cpu(tiny, long_documents="max")
    with pytest.raises(PairError, match=r"pair 0 holds .*half of a character"):
        model.predict([("a", "\ud800")])
    model.long_documents = "best"
    with pytest.raises(ModelError, match="long_documents='best'"):
        model.predict(PAIRS)
    model.long_documents = "max"
    model.model.register_forward_hook(lambda *_: None)
    with pytest.raises(
        ModelError, match=r"sentence-transformers scores this call .*Use long_documents='cut'"
    ):
        model.predict(PAIRS)
    with pytest.raises(ModelError, match="slow tokenizer"):
        windows_of(PAIRS, PairReader(tokenizer, 9).for_request(None), CanineTokenizer(), 64, first=False)


def test_the_best_window_finds_answers_that_the_cut_loses():
    """Of 32 questions; chance is 8."""
    model = on_cpu(DEFAULT_MODEL, "packed-eager", max_length=128)
    found = {}
    for model.long_documents in ("cut", "max"):
        found[model.long_documents] = answers_first(model)
    assert found["max"] >= found["cut"] + 10, found
