"""Every architecture scores as the oracle or exactly as sentence-transformers, as docs/architectures.md says.

"As the oracle" is meant where sentence-transformers' own scores are the oracle's. Where those depend on the
batch, a pair is scored in the same batch as there.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

import xenc
from correctness_tests import architectures, oracle
from correctness_tests.scoring import TOLERANCE, assert_close, logits, on_cpu
from xenc import Execution

PAGE = Path(__file__).parent.parent.parent / "docs" / "architectures.md"
ROWS = dict(re.findall(r"^\| `(\w+)` (\|.*\|)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
SAME_VERSIONS = transformers.__version__.startswith("5.23.") and torch.__version__.startswith("2.13.")

HERE = {
    name: MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[name]
    for name in architectures.TABLE
    if name in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
}
"""Class by architecture, of those that the installed transformers has."""

PAIRS = [
    ("How does Python look up names?", "Names are bound by the following constructs."),
    *[("a b", "c " + "b d " * words) for words in (1, 7, 18, 19, 23, 40)],
    ("question about names", "a document"),
]
"""Of 9 to 64 tokens, in batches whose longest pairs are 64 and about 20 tokens long."""

QUICK = {
    "albert", "bert", "big_bird", "bigbird_pegasus", "canine", "convbert", "deberta", "fnet", "funnel",
    "gpt2", "longformer", "mbart", "modernbert", "nystromformer", "qwen3", "reformer", "t5", "xlnet", "yoso",
}  # fmt: skip
EXECUTIONS = {
    "packed": Execution(),
    "bucketed": Execution(layout="bucketed", compile_mode=None),
    "packed-eager": Execution(compile_mode=None),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in HERE],
)
def architecture(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(architecture, tmp_path_factory):
    return architectures.make(tmp_path_factory.mktemp(architecture), architecture)


@pytest.fixture(scope="module")
def expected(checkpoint):
    return oracle.logits(checkpoint, PAIRS, max_length=64)


def left_to_sentence_transformers(model: xenc.CrossEncoder) -> str | None:
    """Why, if it is."""
    try:
        _ = model.pipeline
    except xenc.ModelError as error:
        failed = re.search(r"failed on three pairs.* \((.+)\)\):", str(error))
        return f"fails beside dummy rows: {failed[1]}" if failed else "measured: padding changes its scores"
    return None


def row(model: xenc.CrossEncoder, asked: Execution, own: str | None, said: str) -> str:
    """What the table says of a model: how it runs, and why."""
    if own is not None:
        return f"| sentence-transformers' own `predict` | {own} |"
    uncompiled = model.execution.compile_mode != asked.compile_mode
    runs = f"{model.execution.layout}, not compiled" if uncompiled else model.execution.layout
    why = "measured: padding changes no score" if "which is rounding" in said else "tested"
    if "looks up <eos>" in said:
        why = "looks up its end tokens as it runs"
    elif "has linear attention" in said:
        why += "; linear attention compiles for minutes"
    elif uncompiled:
        why += "; PyTorch cannot compile it"
    return f"| {runs} | {why} |"


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_every_architecture_scores_as_the_oracle_or_exactly_as_sentence_transformers(
    architecture, checkpoint, expected, execution, caplog, dynamo_alone
):
    original = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu", max_length=64)
    theirs = original.predict(PAIRS, batch_size=4, activation_fn=torch.nn.Identity())
    with caplog.at_level(logging.INFO, logger="xenc"):
        model = on_cpu(checkpoint, EXECUTIONS[execution], max_length=64)
        own = left_to_sentence_transformers(model)
        ours = logits(model, PAIRS, batch_size=4)
    assert np.isfinite(expected).all()
    assert expected.std() > 0.02
    if own is not None:
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert_close(ours, expected)
        assert_close(theirs, expected)
    if execution == "packed":
        decided = row(model, EXECUTIONS[execution], own, caplog.text)
        documented = ROWS.get(HERE[architecture], "is missing")
        if not SAME_VERSIONS:
            decided, documented = (
                re.sub("[,;] (not|PyTorch cannot) compiled?( it)?", "", each)
                for each in (decided, documented)
            )
        assert f"| `{HERE[architecture]}` {documented}" == f"| `{HERE[architecture]}` {decided}"


def test_the_table_has_a_row_for_each_of_more_than_seventy_classes():
    assert len(architectures.TABLE) >= 70
    assert len(ROWS) == len(architectures.TABLE)
    assert {*HERE.values()} <= {*ROWS}


def test_where_both_may_answer_the_tolerance_is_far_below_what_padding_does():
    """FNet's scores move by more than they spread."""
    assert TOLERANCE < 0.01
