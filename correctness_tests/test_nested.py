"""Nested batches: what runs on jagged tensors scores as the oracle; what does not is refused by name."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import xenc
import xenc.nested.attention as nested_attention_room
from correctness_tests import checkpoints, oracle, strategies
from xenc import Execution, ExecutionError, watch_compiles
from xenc.layouts.packed import USUAL_BUDGET
from xenc.nested.attention import NESTED_ATTENTION, nested_attention
from xenc.nested.collate import NestedBatch, NestedCollator
from xenc.packed_collate import PackedCollator
from xenc.plan import PackedPlan
from xenc.tokens import TokenizedPairs

TOLERANCE = 1e-4
PAIRS = [("a", "b " * words) for words in (1, 20, 40, 60, 5, 0)]
EQUAL = [("a", f"{letter} b") for letter in "cdefg"]

GRAPHS = 1 if torch.__version__ >= (2, 13) else 2
"""torch 2.11 has a graph of its own for a single document."""


def made(checkpoint, execution: str | Execution = "nested-eager") -> xenc.CrossEncoder:
    return xenc.CrossEncoder(str(checkpoint), device="cpu", execution=execution)


def logits(model: xenc.CrossEncoder, pairs) -> np.ndarray:
    return model.predict(pairs, activation_fn=torch.nn.Identity())


@pytest.fixture(scope="module")
def nested(tiny):
    return made(tiny)


@given(pairs=strategies.lists_of_pairs())
@example(pairs=[("", "")])
@example(pairs=[("a", "b " * 90)])
@example(pairs=EQUAL)
@example(pairs=PAIRS)
@strategies.FEW
def test_nested_batches_score_as_the_oracle(nested, tiny, pairs):
    expected = oracle.logits(tiny, pairs, max_length=64)
    np.testing.assert_allclose(logits(nested, pairs), expected, rtol=0, atol=TOLERANCE)


@given(order=st.permutations(range(len(PAIRS))))
@strategies.FEW
def test_permuting_the_pairs_permutes_the_scores(nested, order):
    permuted = logits(nested, [PAIRS[index] for index in order])
    np.testing.assert_allclose(permuted, logits(nested, PAIRS)[order], rtol=0, atol=TOLERANCE)


def test_a_request_of_several_batches_scores_as_the_oracle(tiny, monkeypatch):
    monkeypatch.setitem(USUAL_BUDGET, "cpu", 96)
    model, pairs = made(tiny), [*PAIRS, *EQUAL, *PAIRS]
    scores = logits(model, pairs)
    assert model.last_report.batches > 3
    np.testing.assert_allclose(scores, oracle.logits(tiny, pairs, max_length=64), rtol=0, atol=TOLERANCE)


def test_a_nested_batch_has_no_token_that_no_pair_has(nested):
    logits(nested, PAIRS)
    assert nested.last_report.all_tokens == sum(nested.last_report.token_counts)


@pytest.mark.parametrize("architecture", ["distilbert", "electra", "roberta", "camembert", "xlm-roberta"])
def test_a_family_that_runs_on_jagged_tensors_scores_as_the_oracle(architecture, tmp_path):
    checkpoint = checkpoints.make(tmp_path, architecture)
    expected = oracle.logits(checkpoint, PAIRS, max_length=64)
    assert expected.std() > 0.2
    np.testing.assert_allclose(logits(made(checkpoint), PAIRS), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("architecture", ["modernbert", "qwen3", "deberta-v2"])
def test_a_family_that_does_not_is_refused_by_name(architecture, tmp_path, caplog):
    checkpoint = checkpoints.make(tmp_path, architecture)
    caplog.set_level(logging.WARNING, "xenc")
    with pytest.raises(
        ExecutionError, match=r"layout='nested': \w+ForSequenceClassification .*layout='packed'"
    ):
        made(checkpoint)
    assert not [record for record in caplog.records if record.name.startswith("xenc")]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"compile_mode": "reduce-overhead"}, "compile_mode='reduce-overhead'"),
        ({"compile_mode": "max-autotune"}, "compile_mode='max-autotune'"),
        ({"dynamic": False}, "dynamic=False"),
        ({"dynamic": None}, "dynamic=None"),
        ({"freeze": True}, "freeze=True"),
        ({"token_budgets": 512}, "token_budgets=512"),
        ({"deterministic": True}, "deterministic"),
    ],
)
def test_what_a_batch_with_a_shape_of_its_own_cannot_have_is_refused(settings, named):
    with pytest.raises(ExecutionError, match=rf"{named}.* layout='nested'|{named}.*'nested'"):
        Execution(layout="nested", **settings)


def assert_one_graph_scores_all(checkpoint) -> None:
    model = made(checkpoint, Execution(layout="nested", strict=True))
    assert model.warmup().graphs == GRAPHS
    for pairs in (PAIRS, PAIRS[:1], EQUAL, PAIRS[2:4]):
        with watch_compiles() as watch:
            scores = logits(model, pairs)
        assert watch.report.clean, watch.report.describe()
        expected = oracle.logits(checkpoint, pairs, max_length=64)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("dynamo_alone")
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_one_graph_holds_for_every_batch(architecture, tmp_path):
    assert_one_graph_scores_all(checkpoints.make(tmp_path, architecture))


@pytest.mark.slow
def test_compiled_one_graph_holds_for_every_batch(one_layer):
    assert_one_graph_scores_all(one_layer)


def test_what_pytorch_cannot_compile_is_named_when_it_warms_up(one_layer, monkeypatch):
    """PyTorch's own attention on jagged tensors, which xenc makes an operator of on a CPU."""
    monkeypatch.setattr(nested_attention_room, "_through_an_operator", lambda _: False)
    model = made(one_layer, "nested")
    message = rf"layout='nested'.*torch {re.escape(torch.__version__)}.*Unsupported: \S.*nested-eager"
    with pytest.raises(ExecutionError, match=message) as raised:
        model.warmup()
    assert "\n" not in str(raised.value)


def test_padded_batches_under_the_same_name_are_masked(tiny):
    model = AutoModelForSequenceClassification.from_pretrained(tiny, attn_implementation=NESTED_ATTENTION)
    encoded = AutoTokenizer.from_pretrained(tiny)(
        [query for query, _ in PAIRS], [document for _, document in PAIRS],
        padding=True, truncation=True, return_tensors="pt",
    )  # fmt: skip
    with torch.inference_mode():
        padded = model.eval()(**encoded).logits.squeeze(-1).numpy()
    np.testing.assert_allclose(padded, oracle.logits(tiny, PAIRS, max_length=64), rtol=0, atol=TOLERANCE)


def collated(rows: list[list[int]], tokens: int, max_tokens: int) -> NestedBatch:
    packed = PackedCollator(pad_id=7, has_token_types=True, device=torch.device("cpu"))
    plan = PackedPlan(tuple(range(len(rows))), tokens, 99, max_tokens)
    pairs = TokenizedPairs(input_ids=rows, token_type_ids=None, truncated_pairs=0)
    return NestedCollator(packed=packed).collate(pairs, plan)


@given(
    rows=st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=6),
    spare=st.integers(0, 12),
)
def test_the_documents_of_a_nested_batch_are_its_rows_and_then_dummies(rows, spare):
    shown = [row or [7] for row in rows]
    dummies = [[7] * min(5, spare - at) for at in range(0, spare, 5)]
    batch = collated(rows, sum(map(len, shown)) + spare, 5)
    assert [part.tolist() for part in batch.input_ids.unbind()] == [*shown, *dummies]
    assert [part.tolist() for part in batch.position_ids.unbind()] == [
        list(range(len(document))) for document in [*shown, *dummies]
    ]
    assert batch.shape == (sum(map(len, shown)) + spare, len(shown) + len(dummies))


def test_the_operator_answers_what_pytorchs_attention_on_jagged_tensors_does():
    query, key, value = (torch.randn(12, 2, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    offsets = torch.tensor([0, 4, 5, 12])
    out = nested_attention(query, key, value, offsets, 0.3)
    for start, end in ((0, 4), (4, 5), (5, 12)):
        alone = [part[start:end].transpose(0, 1) for part in (query, key, value)]
        expected = scaled_dot_product_attention(*alone, scale=0.3).transpose(0, 1)
        torch.testing.assert_close(out[start:end], expected)
    torch.library.opcheck(nested_attention, (query, key, value, offsets, 0.3))
