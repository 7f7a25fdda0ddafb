"""What is not a list of pairs of texts is the original's to answer, or to refuse with its own error."""

from __future__ import annotations

import numpy as np
import pytest

from correctness_tests.comparison import assert_same
from correctness_tests.waiting import SOON
from xenc import PairError

PAIR = ("a question", "a document")
CHAT = [{"role": "user", "content": "a question"}]

ANSWERED = {
    "a text": "a text",
    "no text": "",
    "an array of one text": np.array("a text"),
    "pairs, then a text": [PAIR, "a text"],
    "a list of two texts is a pair": ["a question", "a document"],
    "a dictionary": {"text": "a text"},
    "a dictionary among pairs": [PAIR, {"text": "a text"}],
}


@pytest.mark.parametrize("inputs", ANSWERED.values(), ids=ANSWERED)
def test_inputs_that_are_not_pairs_score_as_in_sentence_transformers(eager, plain, inputs):
    expected = plain.predict(inputs)
    assert_same(eager.predict(inputs), expected)
    assert_same(eager.submit(inputs).result(SOON), expected)


LEFT_ALONE = {
    "a chat": CHAT,
    "a chat of two": CHAT * 2,
    "a list of a chat": [CHAT],
    "a list of a longer chat": [CHAT * 3],
    "a list of a chat of two": [CHAT * 2],
    "a pair of messages": [(CHAT[0], CHAT[0])],
    "a text, then pairs": ["a text", PAIR],
    "a nested pair": [(PAIR, "a document")],
    "a list in a pair": [("a question", ["a document"])],
    "a dictionary of two texts": [{"query": "a question", "document": "a document"}],
    "a set": {PAIR},
    "an array beside a pair": [PAIR, np.array("a text")],
}


@pytest.mark.parametrize("inputs", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_sentence_transformers_refuses_for_a_reason_of_its_own_raises_its_error(eager, plain, inputs):
    with pytest.raises(Exception) as theirs:  # noqa: PT011 -- whatever it is, ours must be the same
        plain.predict(inputs)
    for ask in (eager.predict, lambda inputs: eager.submit(inputs).result(SOON)):
        with pytest.raises(theirs.type) as ours:
            ask(inputs)
        assert (type(ours.value), str(ours.value)) == (theirs.type, str(theirs.value))


NAMED = {
    "three texts": ([PAIR, ("a", "b", "c")], "input 1 is 3 texts; expected a pair of two strings"),
    "one text": ([PAIR, ("a",)], "input 1 is 1 texts; expected a pair of two strings"),
    "none": ([PAIR, ()], "input 1 is 0 texts; expected a pair of two strings"),
    "a single list of three": (["a", "b", "c"], "input 0 is 3 texts; expected a pair of two strings"),
    "a number": ([PAIR, 7], r"input 1 is 7 \(int\), which is not a string: expected a pair"),
    "None": ([PAIR, None], r"input 1 is None \(NoneType\), which is not a string: expected a pair"),
    "a missing text": ([PAIR, ("a", None)], r"pair 1 holds None .*not a string: use '' for an empty text"),
    "a missing query": ([PAIR, (None, "a")], r"pair 1 holds None .*not a string: use '' for an empty text"),
    "bytes": ([PAIR, ("a", b"b")], r"pair 1 holds b'b' \(bytes\).*: decode it first"),
    "nan": ([PAIR, ("a", float("nan"))], r"pair 1 holds nan \(float\).*: use '' for an empty text"),
    "a long number": ([("a", 10**100)], r"pair 0 holds 10{50,56}\.\.\. \(int\)"),
    "numpy's nan": ([("a", np.float64("nan"))], r"pair 0 holds np.float64\(nan\)"),
    "an array with None": (np.array([["a", None]], dtype=object), r"pair 0 holds None"),
    "half an emoji": ([PAIR, ("a", "\ud83d")], r"pair 1 holds '\\ud83d', half of a character: decode"),
    "half a text": ("\ud83d", r"input 0 is '\\ud83d', half of a character: decode"),
}


@pytest.mark.parametrize(("inputs", "message"), NAMED.values(), ids=NAMED)
def test_an_input_that_cannot_be_scored_is_named_in_an_error_of_both_kinds(eager, plain, inputs, message):
    before = eager.predict([PAIR])
    with pytest.raises(Exception) as theirs:  # noqa: PT011 -- whatever it is, ours must be one too
        plain.predict(inputs)
    for ask in (eager.predict, lambda inputs: eager.submit(inputs).result(SOON)):
        with pytest.raises(PairError, match=message) as ours:
            ask(inputs)
        assert isinstance(ours.value, theirs.type)
    np.testing.assert_array_equal(eager.predict([PAIR]), before)


def test_an_error_that_no_input_explains_is_the_originals(eager):
    def refuse(_: object) -> None:
        raise ValueError("this activation only")

    with pytest.raises(ValueError, match=r"^this activation only$") as raised:
        eager.predict([PAIR, "a text"], activation_fn=refuse)
    assert type(raised.value) is ValueError
