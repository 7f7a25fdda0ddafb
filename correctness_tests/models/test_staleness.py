"""What is changed about a model after its first prediction shows in the next, as in sentence-transformers."""

from __future__ import annotations

import copy
import json
import threading

import numpy as np
import pytest
import sentence_transformers
import torch
from sentence_transformers.base.modules import Transformer
from tokenizers import processors

import xenc
from correctness_tests import checkpoints
from correctness_tests.kernels.test_twin import PAIRS
from correctness_tests.models import test_causal


def scores(model, pairs) -> np.ndarray:
    return np.array([model.predict([pair], activation_fn=torch.nn.Identity())[0] for pair in pairs])


def assert_follows(checkpoint, change, pairs=PAIRS) -> None:
    ours = xenc.CrossEncoder(str(checkpoint), device="cpu", execution="packed-eager")
    theirs = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu")
    before = ours.predict(pairs, activation_fn=torch.nn.Identity())
    for model in (ours, theirs):
        change(model)
    after = ours.predict(pairs, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(after, scores(theirs, pairs), rtol=1e-5, atol=1e-4)
    assert np.abs(after - before).max() > 1e-2


def another_transformer(model) -> None:
    twin = copy.deepcopy(model[0].model)
    with torch.no_grad():
        twin.classifier.weight.mul_(-3)
    model[0].model = twin


def other_special_tokens(model) -> None:
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $B [SEP] $A:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )


@pytest.mark.parametrize("change", [another_transformer, other_special_tokens])
def test_what_is_replaced_is_used(tmp_path, change):
    assert_follows(checkpoints.make(tmp_path, "bert"), change)


def test_another_pooling_is_used(tmp_path):
    checkpoint = checkpoints.make(tmp_path, "modernbert")
    assert_follows(
        checkpoint, lambda model: setattr(model.transformers_model.config, "classifier_pooling", "mean")
    )


def other_token(model) -> None:
    model[1].true_token_id = 20


def head_with_a_bias(model) -> None:
    head = model[0].model.lm_head
    biased = torch.nn.Linear(head.in_features, head.out_features)
    biased.weight = head.weight
    torch.manual_seed(1)
    biased.bias.data.normal_()
    model[0].model.lm_head = biased


class Adapted(torch.nn.Module):
    """A head beside a low-rank one, which shows the base layer's weight as its own."""

    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.base = base
        self.down = torch.nn.Linear(base.in_features, 4, bias=False)
        self.up = torch.nn.Linear(4, base.out_features, bias=False)

    @property
    def weight(self) -> torch.Tensor:
        return self.base.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def adapted_head(model) -> None:
    model[0].model.lm_head = Adapted(model[0].model.lm_head)


@pytest.mark.parametrize("change", [other_token, head_with_a_bias, adapted_head])
def test_a_causal_rerankers_head_is_used_as_it_is(tmp_path, change):
    assert_follows(test_causal.make(tmp_path), change, test_causal.PAIRS)


ROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8, "original_max_position_embeddings": 16}  # fmt: skip


@pytest.mark.parametrize(
    "changed", [{"is_causal": False}, {"rope_parameters": ROPE}], ids=["is_causal", "longrope"]
)
def test_a_setting_that_packing_cannot_follow_is_not_packed(tmp_path, changed):
    file = checkpoints.make(tmp_path, "qwen3") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    model = xenc.CrossEncoder(str(tmp_path), device="cpu", execution="packed-eager")
    assert model.execution.layout == "bucketed"


def doubled(base):
    class Doubled(base):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output["scores"] = output["scores"] * -2
            return output

    return Doubled


def test_an_overridden_forward_is_called(tiny):
    ours = doubled(xenc.CrossEncoder)(str(tiny), device="cpu", execution="packed-eager")
    theirs = doubled(sentence_transformers.CrossEncoder)(str(tiny), device="cpu")
    np.testing.assert_allclose(scores(ours, PAIRS), scores(theirs, PAIRS), rtol=0, atol=1e-5)


def test_a_transformer_module_of_another_class_is_called(tiny):
    assert_follows(tiny, lambda model: setattr(model[0], "__class__", doubled(Transformer)))


def test_the_slow_path_does_not_disturb_the_fast_ones_tokenizer(tiny):
    pairs = [(f"q{index} word", "some text here " * (index % 9 + 1)) for index in range(200)]
    with xenc.CrossEncoder(str(tiny), device="cpu", execution="packed-eager") as model:
        expected, stop, errors = model.predict(pairs), threading.Event(), []

        def slowly() -> None:
            while not stop.is_set():
                try:
                    model.predict(pairs[:40], apply_softmax=True, batch_size=4)
                except Exception as error:
                    errors.append(error)

        thread = threading.Thread(target=slowly)
        thread.start()
        wrong = [np.abs(model.predict(pairs) - expected).max() for _ in range(40)]
        stop.set()
        thread.join()
    assert errors == []
    assert max(wrong) < 1e-5
