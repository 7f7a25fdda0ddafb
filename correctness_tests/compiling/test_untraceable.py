"""A model that PyTorch cannot compile runs as it is, and says so once; in strict mode that is an error."""

from __future__ import annotations

import logging
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sentence_transformers
import torch

import xenc
from correctness_tests import architectures, checkpoints
from correctness_tests.checkpoints import PAIRS
from correctness_tests.scoring import assert_close, logits, on_cpu
from xenc import CompileError, Execution

NOW_EAGER = "execution is now not compiled, which is slower"


class Lists(torch.nn.Module):
    """A module that looks at numbers, which cannot be traced."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        output = self.inner(*inputs)
        output.sum().tolist()
        return output


class Logs(Lists):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        logging.getLogger("somebody's").info("%s", self)
        return self.inner(*inputs)


def quantised(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.ao.quantization.quantize_dynamic(
            model.transformers_model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
        )


def first_layer(model):
    return model.transformers_model.base_model.encoder.layer[0]


def listing(model):
    first_layer(model).output = Lists(first_layer(model).output)


def logs(model):
    first_layer(model).output = Logs(first_layer(model).output)


CASES = {
    "deberta": (None, r"deberta\.encoder\.layer\.0\.\S+, a \w+"),
    "longformer": (None, "LongformerForSequenceClassification"),
    "a module that lists": (listing, r"bert\.encoder\.layer\.0\.output, a Lists"),
    "a module that logs": (logs, r"bert\.encoder\.layer\.0\.output, a Logs"),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path, dynamo_alone):
    """Makes the model in this library, under an execution, and in sentence-transformers."""
    change, place = CASES[request.param]
    architecture = request.param if change is None else "bert"
    checkpoint = architectures.make(tmp_path, architecture)

    def make(**settings):
        model = on_cpu(checkpoint, Execution(**settings), max_length=64)
        original = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu", max_length=64)
        for each in (model, original):
            if change is not None:
                change(each)
        return model, original

    return make, place


def said_by(caplog, text):
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


@pytest.mark.parametrize("first", ["warm-up", "predict"])
def test_a_model_that_cannot_be_compiled_answers_and_says_once_why_and_where(case, first, caplog):
    (make, place) = case
    model, original = make()
    report = model.warmup(batch_size=4) if first == "warm-up" else None
    for _ in range(2):
        scores = logits(model, PAIRS, batch_size=4)
    assert_close(scores, original.predict(PAIRS, activation_fn=torch.nn.Identity()))
    assert report is None or (report.shapes, report.graphs) == ((), 0)
    assert model.execution.compile_mode is None
    assert model.execution.layout in ("packed", "bucketed")
    assert model.pipeline.compiled is None
    (said,) = said_by(caplog, NOW_EAGER)
    assert re.search(rf"cannot be compiled: .*\(in {place}\)", said)


def test_in_strict_mode_it_is_an_error_with_the_same_reason(case):
    make, place = case
    model, _ = make(strict=True)
    for ask in (lambda: model.warmup(batch_size=4), lambda: model.predict(PAIRS)):
        with pytest.raises(
            CompileError, match=rf"cannot be compiled: .*\(in {place}\).*Use compile_mode=None"
        ):
            ask()
    model.execution = Execution(compile_mode=None)
    assert np.isfinite(model.predict(PAIRS)).all()


def test_requests_that_meet_while_it_turns_out_are_all_answered(case, caplog):
    make, _ = case
    model, original = make()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: logits(model, PAIRS[row:], batch_size=4), [*range(8)] * 3))
    expected = original.predict(PAIRS, activation_fn=torch.nn.Identity())
    for row, scores in zip([*range(8)] * 3, answers, strict=True):
        assert_close(scores, expected[row:])
    assert len(said_by(caplog, NOW_EAGER)) == 1


def test_what_was_asked_for_is_tried_again_when_the_model_has_changed(one_layer, dynamo_alone, caplog):
    model = on_cpu(one_layer, "packed")
    before = first_layer(model).output
    listing(model)
    model.predict(PAIRS)
    model.max_seq_length = 60
    model.predict(PAIRS)
    assert model.execution == Execution(compile_mode=None)
    assert len(said_by(caplog, NOW_EAGER)) == 1
    first_layer(model).output = before
    model.predict(PAIRS)
    assert model.execution == Execution()
    assert model.pipeline.compiled.graphs == 1


def test_what_a_backend_cannot_generate_code_for_runs_as_it_is(one_layer, monkeypatch, caplog):
    compile_ = torch.compile

    def refuse(graph, inputs):
        raise RuntimeError("no code for this graph")

    monkeypatch.setattr(
        torch, "compile", lambda function, mode, **kw: compile_(function, backend=refuse, **kw)
    )
    model, plain = on_cpu(one_layer, "packed"), on_cpu(one_layer, "packed-eager")
    assert_close(logits(model, PAIRS), logits(plain, PAIRS))
    (said,) = said_by(caplog, NOW_EAGER)
    assert "no code for this graph" in said


def test_a_shared_prefix_is_computed_once_without_compiling_too(tmp_path, dynamo_alone, caplog):
    checkpoint = checkpoints.make(tmp_path, "qwen3")
    model = on_cpu(checkpoint, Execution(share_prefix=True))
    layer = model.transformers_model.base_model.layers[0]
    layer.mlp = Lists(layer.mlp)
    pairs = [("the same question " * 8, document) for _, document in PAIRS]
    assert_close(logits(model, pairs), logits(on_cpu(checkpoint, "packed-eager"), pairs))
    assert model.last_report.shared_tokens > 0
    assert model.execution == Execution(share_prefix=True, compile_mode=None)


def test_linears_that_read_the_whole_batch_score_as_in_sentence_transformers(one_layer):
    """The scale of their activations is the batch's, padding and all."""
    model = on_cpu(one_layer, "packed", max_length=64)
    original = sentence_transformers.CrossEncoder(str(one_layer), device="cpu", max_length=64)
    for each in (model, original):
        quantised(each)
    expected = original.predict(PAIRS, batch_size=4, activation_fn=torch.nn.Identity())
    np.testing.assert_array_equal(logits(model, PAIRS, batch_size=4), expected)
    assert (model.execution.layout, model.execution.compile_mode) == ("padded", None)


def test_what_somebody_compiles_in_a_model_that_runs_as_it_is_fails_as_it_would(one_layer, caplog):
    model = on_cpu(one_layer, "sdpa-sorted")

    def refuse(graph, inputs):
        raise RuntimeError("no code for this graph")

    first_layer(model).compile(backend=refuse, fullgraph=True)
    with pytest.raises(RuntimeError, match="no code for this graph"):
        model.predict(PAIRS)
    assert model.execution == xenc.PRESETS["sdpa-sorted"]
    assert not said_by(caplog, NOW_EAGER)


def test_what_a_module_of_somebodys_compiles_later_fails_as_it_would(one_layer, caplog):
    refused = []

    def compile_at_first(graph, inputs):
        if refused:
            raise RuntimeError("no code for this graph")
        return graph.forward

    @torch.compile(backend=compile_at_first, dynamic=False)
    def same(hidden):
        return hidden + 0

    class Compiled(Lists):
        def forward(self, *inputs):
            return same(self.inner(*inputs))

    model = on_cpu(one_layer, "packed-eager")
    first_layer(model).output = Compiled(first_layer(model).output)
    model.predict(PAIRS[:1])
    refused.append("from now on")
    with pytest.raises(RuntimeError, match="no code for this graph"):
        model.predict(PAIRS)
    assert model.execution == xenc.PRESETS["packed-eager"]
    assert not said_by(caplog, NOW_EAGER)
