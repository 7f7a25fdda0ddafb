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
from correctness_tests.scoring import assert_close, logits, on_cpu


def scores(model, pairs) -> np.ndarray:
    return np.array([logits(model, [pair])[0] for pair in pairs])


def assert_follows(checkpoint, change, pairs=PAIRS) -> None:
    ours, theirs = (
        on_cpu(checkpoint, "packed-eager"),
        sentence_transformers.CrossEncoder(str(checkpoint), device="cpu"),
    )
    before = logits(ours, pairs)
    for model in (ours, theirs):
        change(model)
    after = logits(ours, pairs)
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


def another_tokenizer(model) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.backend_tokenizer.normalizer = None
    model[0].processor = tokenizer


def another_length(model) -> None:
    model.max_seq_length = 16


def another_class(model) -> None:
    model[0].__class__ = doubled(Transformer)


def another_pooling(model) -> None:
    model.transformers_model.config.classifier_pooling = "mean"


@pytest.mark.parametrize(
    ("architecture", "change"),
    [
        *(("bert", change) for change in (another_transformer, other_special_tokens, another_tokenizer)),
        *(("bert", change) for change in (another_length, another_class)),
        ("modernbert", another_pooling),
    ],
)
def test_what_is_replaced_or_set_later_is_used(tmp_path, architecture, change):
    assert_follows(checkpoints.make(tmp_path, architecture), change)


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
    ("changed", "instead"),
    [({"is_causal": False}, "bucketed"), ({"rope_parameters": ROPE}, "padded")],
    ids=["is_causal", "longrope"],
)
def test_a_setting_that_packing_cannot_follow_is_not_packed(tmp_path, changed, instead):
    file = checkpoints.make(tmp_path, "qwen3") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert on_cpu(tmp_path, "packed-eager").execution.layout == instead


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
    assert_close(scores(ours, PAIRS), scores(theirs, PAIRS), 1e-5)


def test_the_slow_path_does_not_disturb_the_fast_ones_tokenizer(tiny):
    pairs = [(f"q{index} word", "some text here " * (index % 9 + 1)) for index in range(200)]
    with on_cpu(tiny, "packed-eager") as model:
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
