"""Activations, and NaN: as in sentence-transformers, except that NaN is an error unless it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import sentence_transformers
import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from correctness_tests.comparison import assert_same
from correctness_tests.scoring import on_cpu
from correctness_tests.serving.conftest import FINE, POISON
from correctness_tests.waiting import SOON
from xenc import NonFiniteScoreError

PAIRS = [("where is it " * (words % 3), "here it is " * words) for words in (3, 1, 4, 1, 5, 9, 2, 6)]


def of_the_batch(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(dim=0) + len(logits)


ACTIVATIONS = {
    "softmax over the batch": of_the_batch,
    "a module that does": torch.nn.Softmax(dim=0),
    "below the best of the batch": lambda logits: logits - logits.max(),
    "squeezed": lambda logits: logits.squeeze(-1) - logits.mean(),
    "of each number": torch.nn.Tanh(),
}


@pytest.mark.parametrize("execution", ["packed-eager", "sdpa-sorted"])
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("batch_size", [1, 3, np.int64(3), 32])
def test_an_activation_sees_the_batches_of_sentence_transformers(
    tiny, plain, execution, activation, batch_size
):
    asked = {"batch_size": batch_size, "activation_fn": activation}
    expected = plain.predict(PAIRS, **asked)
    with on_cpu(tiny, execution) as model:
        assert_same(model.predict(PAIRS, **asked), expected)
        assert_same(model.submit(PAIRS, **asked).result(SOON), expected)
        model.activation_fn = activation
        assert_same(model.predict(PAIRS, batch_size=batch_size), expected)


def test_an_activation_of_each_number_is_called_once(tiny):
    calls = []
    sigmoid = torch.nn.Sigmoid()
    sigmoid.register_forward_hook(lambda _, given, score: calls.append(len(score)))
    on_cpu(tiny).predict(PAIRS, batch_size=3, activation_fn=sigmoid)
    on_cpu(tiny).predict(PAIRS, batch_size=3, activation_fn=lambda logits: sigmoid(logits))
    assert calls == [len(PAIRS), 3, 3, 2]


def test_without_an_activation_scores_are_logits(tiny, three_labels):
    for checkpoint in (tiny, three_labels):
        ours = on_cpu(checkpoint)
        theirs = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu")
        ours.activation_fn = theirs.activation_fn = None
        expected = theirs.predict(PAIRS)
        assert_same(ours.predict(PAIRS), expected)
        assert_same(ours.submit(PAIRS).result(SOON), expected)
        assert_same(ours.predict(PAIRS, apply_softmax=True), theirs.predict(PAIRS, apply_softmax=True))


def test_nan_is_an_error_that_names_its_switch(model):
    assert model.refuse_nan
    for ask in (model.predict, lambda pairs: model.submit(pairs).result(SOON)):
        with pytest.raises(NonFiniteScoreError, match=r"model\.refuse_nan = False"):
            ask([FINE, POISON])


def test_with_the_switch_off_nan_is_a_score(model):
    model.refuse_nan = False
    for ask in (model.predict, lambda pairs: model.submit(pairs).result(SOON)):
        np.testing.assert_array_equal(np.isnan(ask([FINE, POISON, FINE])), [False, True, False])
    assert [found["corpus_id"] for found in model.rank(FINE[0], [FINE[1]])] == [0]


class Evaluator(BaseEvaluator):
    """Judges a model by its scores; returns them."""

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        return [model.predict(pairs) for pairs in ([FINE, POISON], [FINE])]


def test_an_evaluator_gets_nan_as_from_sentence_transformers(model, tiny):
    theirs = sentence_transformers.CrossEncoder(str(tiny), device="cpu")
    theirs.transformers_model.load_state_dict(model.transformers_model.state_dict())
    assert_same(Evaluator()(model), Evaluator()(theirs))
    with pytest.raises(NonFiniteScoreError):
        model.predict([FINE, POISON])
