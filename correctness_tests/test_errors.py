"""Bad input: the message names the value and the remedy, and the model still works afterwards."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest
import torch

import xenc
from correctness_tests.scoring import on_cpu
from xenc import (
    CompileError,
    Execution,
    ExecutionError,
    ModelError,
    NonFiniteScoreError,
    PairError,
    XencError,
)
from xenc.presets import REPLACED, resolve_execution

FINE = ("a question", "a document")


@pytest.fixture(scope="module")
def model(tiny):
    return on_cpu(tiny)


@pytest.fixture
def works_on(model):
    """After the error, the model answers as before it."""
    before = model.predict([FINE])
    yield
    np.testing.assert_array_equal(model.predict([FINE]), before)


@pytest.mark.parametrize(("document", "message"), [(None, "pair 1 holds None"), (7, "pair 1 holds 7")])
def test_a_bad_document_is_named_when_ranking(model, works_on, document, message):
    with pytest.raises(PairError, match=message):
        model.rank("a question", ["a document", document])


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_pairs_is_refused(model, works_on, batch_size):
    for ask in (lambda: model.predict([FINE], batch_size=batch_size), lambda: model.warmup(batch_size)):
        with pytest.raises(ExecutionError, match=rf"batch_size={batch_size} must be a positive number"):
            ask()


@pytest.mark.parametrize("requested", [1, 2])
def test_max_length_below_the_special_tokens_is_refused_or_works(tiny, requested):
    with suppress(ModelError):
        assert on_cpu(tiny, "packed-eager", max_length=requested).predict([FINE]).shape == (1,)


BAD_EXECUTIONS = {
    "unsorted buckets": ({"buckets": (32, 16)}, r"\(32, 16\) must strictly ascend.*\(16, 32\)"),
    "a bucket twice": ({"buckets": (16, 16)}, r"\(16, 16\) must strictly ascend.*\(16,\)"),
    "a step of nothing": ({"buckets": 0}, r"buckets=0: 0 is not a positive number of tokens"),
    "a negative bucket": ({"buckets": (-1, 8)}, r"-1 is not a positive number of tokens"),
    "a fractional bucket": ({"buckets": (8.5,)}, r"8.5 is not a positive number of tokens"),
    "no bucket": ({"buckets": ()}, r"buckets=\(\).*a number, 'powers-of-two' or 'max-length', or a"),
    "a list of buckets": ({"buckets": [8, 16]}, r"buckets=\[8, 16\].*non-empty tuple"),
    "buckets by a wrong name": ({"buckets": "powers"}, r"'powers'.*'powers-of-two'"),
    "True buckets": ({"buckets": True}, r"True is not a positive number of tokens"),
    "an unknown layout": ({"layout": "ragged"}, r"layout='ragged' is not one of 'padded', 'bucketed', 'pack"),
    "an unknown attention": ({"attention": "flash"}, r"attention='flash' is not one of 'eager', 'sdpa'"),
    "an unknown mode": (
        {"compile_mode": "fast"},
        r"compile_mode='fast' is not one of None, 'auto', 'default'",
    ),
    "dynamic by a number": ({"dynamic": 1}, r"dynamic=1 is not one of True, False, None"),
    "buckets of a packed batch": ({"buckets": 32}, r"buckets=32 are for layout='bucketed', not 'packed'"),
    "budgets of a padded batch": (
        {"layout": "bucketed", "token_budgets": 512},
        r"token_budgets=512 is for layout='packed', not 'bucketed'",
    ),
    "determinism of a padded batch": (
        {"layout": "bucketed", "deterministic": True},
        r"deterministic is for layout='packed', not 'bucketed'",
    ),
    "determinism in several sizes": (
        {"deterministic": True, "token_budgets": (512, 1024)},
        r"deterministic with token_budgets=\(512, 1024\).*Give one budget",
    ),
    "budgets that descend": ({"token_budgets": (1024, 512)}, r"\(1024, 512\) must strictly ascend"),
    "compiling what is padded": ({"layout": "padded"}, r"compile_mode='auto'.*Use layout='bucketed'"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_EXECUTIONS.values(), ids=BAD_EXECUTIONS)
def test_an_invalid_execution_is_refused(fields, message):
    with pytest.raises(ExecutionError, match=message):
        Execution(**fields)


def test_an_unknown_preset_lists_the_known_ones(tiny, model, works_on):
    with pytest.raises(ExecutionError, match=r"execution='fastest'.*sdpa-sorted.*bucketed"):
        on_cpu(tiny, "fastest")
    with pytest.raises(ExecutionError, match=f"{', '.join(xenc.PRESETS)}"):
        model.execution = "fastest"
    assert model.execution == xenc.PRESETS["sdpa-sorted"]


@pytest.mark.parametrize(("name", "instead"), REPLACED.items(), ids=REPLACED)
def test_a_preset_of_an_earlier_version_is_refused_with_what_to_write_instead(name, instead):
    with pytest.raises(ExecutionError, match=re.escape(f"execution={name!r} is")) as refused:
        resolve_execution(name)
    assert str(refused.value).endswith(f"Write execution={instead}.")
    assert isinstance(resolve_execution(eval(instead, {"Execution": Execution})), Execution)


def test_buckets_below_max_length_are_refused_and_the_execution_stays(tiny):
    model = on_cpu(tiny)
    before = (model.execution, model.transformers_model.config._attn_implementation)
    too_short = Execution(layout="bucketed", buckets=(16, 32), compile_mode=None, attention="eager")
    with pytest.raises(ExecutionError, match=r"\(16, 32\) end below max_length=64.*Add 64"):
        model.execution = too_short
    assert (model.execution, model.transformers_model.config._attn_implementation) == before
    assert model.predict([FINE]).shape == (1,)


def test_nan_logits_name_the_pairs_and_no_others(tiny):
    model = on_cpu(tiny)
    poisoned = model.tokenizer.convert_tokens_to_ids("q")
    with torch.no_grad():
        model.transformers_model.get_input_embeddings().weight[poisoned] = float("nan")
    with pytest.raises(NonFiniteScoreError, match=r"2 of 5 pairs.*indices \[1, 4\].*score in float32"):
        model.predict([FINE, ("q", "b b b b b"), FINE, ("b", ""), ("b", "q")], batch_size=3)
    assert np.isfinite(model.predict([FINE])).all()


def test_infinite_logits_are_scores(tiny):
    model = on_cpu(tiny)
    with torch.no_grad():
        model.transformers_model.classifier.bias.fill_(float("inf"))
    assert model.predict([FINE]) == 1


@pytest.mark.parametrize(
    "error", [ExecutionError, ModelError, PairError, CompileError, NonFiniteScoreError, xenc.Overloaded]
)
def test_every_error_is_an_xenc_error(error):
    assert issubclass(error, XencError)
