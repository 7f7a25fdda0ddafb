"""A max_length above a model's positions is refused as by sentence-transformers: only for a longer text."""

from __future__ import annotations

import logging

import pytest
import sentence_transformers

from correctness_tests import checkpoints
from correctness_tests.comparison import assert_same
from correctness_tests.scoring import on_cpu
from correctness_tests.waiting import SOON
from xenc import ModelError

SHORT = [("a question", "a document"), ("a", "b " * 12)]
LONG = [*SHORT, ("a", "b " * 200)]
POSITIONS = 64


def models(folder, architecture, execution, **options):
    checkpoint = checkpoints.make(folder, architecture)
    theirs = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu", **options)
    return on_cpu(checkpoint, execution, **options), theirs


@pytest.mark.parametrize("architecture", ["bert", "electra", "distilbert", "xlm-roberta", "mpnet"])
def test_only_a_text_that_has_no_position_is_refused_and_with_the_same_error(tmp_path, architecture, caplog):
    ours, theirs = models(tmp_path, architecture, "packed-eager", max_length=100)
    remarks = [record for record in caplog.records if "max_length=100" in record.message]
    assert [(remark.levelno, str(POSITIONS) in remark.message) for remark in remarks] == [
        (logging.WARNING, True)
    ]
    for _ in range(2):
        assert_same(ours.predict(SHORT), theirs.predict(SHORT))
        assert ours.last_report.pairs == len(SHORT)  # of the pipeline
        with pytest.raises(Exception) as expected:  # noqa: PT011 -- whatever it is, ours must be the same
            theirs.predict(LONG)
        for ask in (ours.predict, lambda pairs: ours.submit(pairs).result(SOON)):
            with pytest.raises(expected.type) as raised:
                ask(LONG)
            assert str(raised.value) == str(expected.value)


def test_a_prompt_may_be_what_makes_a_pair_too_long(tmp_path):
    ours, theirs = models(tmp_path, "bert", "packed-eager", max_length=100)
    with pytest.raises(Exception) as expected:  # noqa: PT011
        theirs.predict(SHORT, prompt="word " * 80)
    with pytest.raises(expected.type):
        ours.predict(SHORT, prompt="word " * 80)


@pytest.mark.parametrize("execution", ["packed-eager", "sdpa-sorted"])
@pytest.mark.parametrize("architecture", ["modernbert", "qwen2", "qwen3"])
def test_rotated_positions_have_no_end(tmp_path, architecture, execution, caplog):
    ours, theirs = models(tmp_path, architecture, execution, max_length=100)
    assert_same(ours.predict(LONG), theirs.predict(LONG))
    assert max(ours.last_report.token_counts) == 100
    assert "max_length" not in caplog.text


@pytest.mark.parametrize("length", [100, int(1e30)])
def test_a_length_set_later_counts_too(tmp_path, length):
    ours, theirs = models(tmp_path, "bert", "packed-eager")
    ours.max_seq_length = theirs.max_seq_length = length
    assert_same(ours.predict(SHORT), theirs.predict(SHORT))
    with pytest.raises(RuntimeError, match="must match the size"):
        ours.predict(LONG)
    ours.max_seq_length = theirs.max_seq_length = POSITIONS
    assert_same(ours.predict(LONG), theirs.predict(LONG))


@pytest.mark.parametrize("execution", ["bucketed", "packed"])
def test_warm_up_runs_no_shape_that_has_no_positions(tmp_path, execution, dynamo_alone):
    ours, theirs = models(tmp_path, "bert", execution, max_length=100)
    shapes = ours.warmup(4).shapes
    assert shapes
    assert execution == "packed" or max(length for _, length in shapes) == POSITIONS
    assert_same(ours.predict(SHORT, batch_size=4), theirs.predict(SHORT))


def test_a_model_without_a_longest_text_is_the_originals(tmp_path):
    ours, theirs = models(tmp_path, "deberta-v2", "sdpa-sorted")
    del ours.config.max_position_embeddings
    ours.max_seq_length = theirs.max_seq_length = int(1e30)
    assert_same(ours.predict(LONG), theirs.predict(LONG))


@pytest.mark.parametrize("length", [0, 1, 2, -5])
def test_a_length_that_no_pair_fits_is_refused(tiny, length):
    with pytest.raises(ModelError, match=rf"max_length={length} must be"):
        on_cpu(tiny, max_length=length)
