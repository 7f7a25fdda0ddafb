"""sentence-transformers' `CrossEncoder` on the same checkpoint: same calls, same types, same scores."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from hypothesis import example, given

import xenc
from correctness_tests import strategies
from correctness_tests.comparison import assert_same
from correctness_tests.scoring import assert_close, on_cpu
from perf_tests import workloads

PAIRS = [(query[:70], document[:90]) for query, document in workloads.seed(pairs=9, batch_size=8).round(2)]
QUERY = PAIRS[0][0]
DOCUMENTS = [document for _, document in PAIRS]
LISTS = [list(pair) for pair in PAIRS]

CrossEncoder = sentence_transformers.CrossEncoder
Call = Callable[[CrossEncoder], Any]


def squeeze(scores: torch.Tensor) -> torch.Tensor:
    return scores.squeeze(-1)


CALLS: dict[str, Call] = {
    "tuples": lambda model: model.predict(PAIRS),
    "lists": lambda model: model.predict(LISTS),
    "tuple of pairs": lambda model: model.predict(tuple(PAIRS)),
    "one tuple": lambda model: model.predict(PAIRS[0]),
    "one list": lambda model: model.predict(LISTS[0]),
    "a list of one pair": lambda model: model.predict(PAIRS[:1]),
    "array of pairs": lambda model: model.predict(np.array(PAIRS)),
    "array of objects": lambda model: model.predict(np.array(PAIRS, dtype=object)),
    "one array": lambda model: model.predict(np.array(PAIRS[0])),
    "nothing": lambda model: model.predict([]),
    "nothing, as a tensor": lambda model: model.predict([], convert_to_tensor=True),
    "nothing, as a list": lambda model: model.predict([], convert_to_numpy=False),
    "tensor": lambda model: model.predict(PAIRS, convert_to_tensor=True),
    "list of tensors": lambda model: model.predict(PAIRS, convert_to_numpy=False),
    "one tensor": lambda model: model.predict(PAIRS[0], convert_to_tensor=True),
    "one of a list": lambda model: model.predict(PAIRS[0], convert_to_numpy=False),
    "positional": lambda model: model.predict(PAIRS, None, "in: ", 3, False, torch.tanh, False, False),
    "small batches": lambda model: model.predict(PAIRS, batch_size=2),
    "prompt": lambda model: model.predict(PAIRS, prompt="What is this? "),
    "empty prompt": lambda model: model.predict(PAIRS, prompt=""),
    "activation": lambda model: model.predict(PAIRS, activation_fn=torch.nn.Tanh()),
    "squeezing activation": lambda model: model.predict(PAIRS, activation_fn=squeeze),
    "one squeezed": lambda model: model.predict(PAIRS[0], activation_fn=squeeze),
    "softmax over one": lambda model: model.predict(PAIRS, apply_softmax=True),
    "device": lambda model: model.predict(PAIRS, device="cpu"),
    "sentences=": lambda model: model.predict(sentences=PAIRS),
    "activation_fct=": lambda model: model.predict(PAIRS, activation_fct=torch.nn.Tanh()),
    "num_workers=": lambda model: model.predict(PAIRS, num_workers=2),
    "processing_kwargs": lambda model: model.predict(PAIRS, processing_kwargs={"text": {"max_length": 9}}),
    "rank": lambda model: model.rank(QUERY, DOCUMENTS),
    "rank top": lambda model: model.rank(QUERY, DOCUMENTS, top_k=3),
    "rank documents": lambda model: model.rank(QUERY, DOCUMENTS, return_documents=True),
    "rank nothing": lambda model: model.rank(QUERY, []),
    "rank prompt": lambda model: model.rank(QUERY, DOCUMENTS, prompt="in: ", batch_size=2),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_answers_as_sentence_transformers(eager, plain, call):
    assert_same(call(eager), call(plain))


def test_an_activation_of_no_length_is_one(eager, plain):
    """sentence-transformers 6.0 ignores it."""
    ours = eager.predict(PAIRS, activation_fn=torch.nn.Sequential())
    assert_same(ours, plain.predict(PAIRS, activation_fn=torch.nn.Identity()))


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("inputs", [PAIRS, PAIRS[0], []], ids=["many", "one", "none"])
@pytest.mark.parametrize("activation", [None, torch.nn.Sigmoid(), lambda scores: scores[:, 0]])
def test_several_labels_answer_as_sentence_transformers(three_labels, softmax, inputs, activation):
    models = on_cpu(three_labels), CrossEncoder(str(three_labels), device="cpu")
    ours, theirs = (
        model.predict(inputs, activation_fn=activation, apply_softmax=softmax) for model in models
    )
    assert_same(ours, theirs)


@given(pairs=strategies.lists_of_pairs())
@example(pairs=[(" spaces \n", "\ttabs "), ("", "")])
@strategies.FEW
def test_any_texts_score_as_in_sentence_transformers(eager, plain, pairs):
    assert_close(eager.predict(pairs), plain.predict(pairs), 1e-5)


@pytest.mark.parametrize("name", ["predict", "rank"])
def test_the_signature_is_that_of_sentence_transformers(name):
    ours, theirs = (
        [(parameter.name, parameter.kind, parameter.default) for parameter in signature.parameters.values()]
        for signature in (
            inspect.signature(getattr(kind, name)) for kind in (xenc.CrossEncoder, CrossEncoder)
        )
    )
    assert ours == theirs


PROMPTS = {"prompts": {"ask": "Q: ", "other": "O: "}, "default_prompt_name": "other"}


@pytest.mark.parametrize("arguments", [{}, {"prompt_name": "ask"}, {"prompt": "P: "}], ids=str)
def test_saved_prompts_are_used_as_in_sentence_transformers(tiny, arguments):
    ours, theirs = on_cpu(tiny, **PROMPTS), CrossEncoder(str(tiny), device="cpu", **PROMPTS)
    assert_same(ours.predict(PAIRS, **arguments), theirs.predict(PAIRS, **arguments))
    assert_same(ours.rank(QUERY, DOCUMENTS, **arguments), theirs.rank(QUERY, DOCUMENTS, **arguments))


REFUSED: dict[str, Call] = {
    "generator": lambda model: model.predict(pair for pair in PAIRS),
    "unknown prompt": lambda model: model.predict(PAIRS, prompt_name="unknown"),
    "no batch": lambda model: model.predict(PAIRS, batch_size=0),
    "number": lambda model: model.predict(3),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_sentence_transformers_refuses_is_refused_with_the_same_error(eager, plain, call):
    with pytest.raises(Exception) as theirs:  # noqa: PT011 -- whatever it is, ours must be one too
        call(plain)
    with pytest.raises(theirs.type):
        call(eager)


def test_rank_refuses_several_labels(three_labels):
    with pytest.raises(ValueError, match="num_labels=1"):
        on_cpu(three_labels).rank(QUERY, DOCUMENTS)


@pytest.mark.parametrize("shown", [True, False, None])
def test_the_progress_bar_is_shown_as_in_sentence_transformers(eager, plain, capsys, shown):
    plain.predict(PAIRS, show_progress_bar=shown)
    theirs = "Batches" in capsys.readouterr().err
    eager.predict(PAIRS, show_progress_bar=shown)
    assert ("Pairs" in capsys.readouterr().err) == theirs


def test_scores_are_made_in_inference_mode(eager):
    assert eager.predict(PAIRS, convert_to_tensor=True).is_inference()
