"""A GPU's numbers of slots, tested on a CPU: scores are the oracle's, one graph, every shape warmed up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings

import xenc
from correctness_tests import oracle, strategies
from correctness_tests.test_scores import EDGES, SKEWED, TOLERANCE, logits, some_prose
from xenc import Execution, watch_compiles
from xenc.layouts import packed

LENGTHS = (60, 41, 30, 1)
"""Words of documents, for batches with different numbers of slots."""


@pytest.fixture(autouse=True)
def slots_of_a_gpu(monkeypatch):
    monkeypatch.setitem(packed.TOKENS_PER_SEQUENCE, "cpu", packed.TOKENS_PER_SEQUENCE["cuda"])


def made(checkpoint, execution: Execution, **kwargs) -> xenc.CrossEncoder:
    return xenc.CrossEncoder(str(checkpoint), device="cpu", execution=execution, **kwargs)


def slots_of(model: xenc.CrossEncoder, pairs) -> set[tuple[int, int]]:
    """(tokens, slots) of the batches that pairs make."""
    plan = model.pipeline.plan(model.pipeline.tokenize(pairs), batch_size=1)
    return {(batch.tokens, batch.max_sequences) for batch in plan.batches}


REQUESTS = [[("a", "b " * words)] * count for words in LENGTHS for count in (1, 9, 400)]


@given(pairs=strategies.lists_of_pairs(max_size=20))
@example(pairs=[*SKEWED, *EDGES, *some_prose(24)])
@example(pairs=[("", "")] * 40)
@settings(
    strategies.FEW,
    suppress_health_check=[*strategies.FEW.suppress_health_check, HealthCheck.function_scoped_fixture],
)
def test_whatever_the_slots_scores_are_the_oracles(tiny, pairs):
    with made(tiny, Execution(token_budgets=512, compile_mode=None)) as model:
        scores = logits(model, pairs)
    np.testing.assert_allclose(scores, oracle.logits(tiny, pairs, max_length=64), rtol=0, atol=TOLERANCE)


def test_one_graph_holds_for_all_slots_and_nothing_compiles_after_warm_up(one_layer):
    with made(one_layer, Execution(strict=True)) as model:
        report = model.warmup()
        assert report.graphs == model.pipeline.compiled.graphs == 1
        seen = set()
        with watch_compiles() as watch:
            for pairs in REQUESTS:
                scores = logits(model, pairs)
                seen |= slots_of(model, pairs)
                one = oracle.logits(one_layer, pairs[:1], max_length=64)
                np.testing.assert_allclose(scores, [one[0]] * len(pairs), rtol=0, atol=TOLERANCE)
    assert watch.report.clean, watch.report.describe()
    assert {slots for tokens, slots in seen if tokens == 2048} == {42, 50, 66, 290}
    assert seen <= set(report.shapes)


@pytest.mark.parametrize("max_length", [40, 41, 64])
def test_one_graph_holds_where_numbers_of_slots_equal_the_longest_pair(one_layer, dynamo_alone, max_length):
    with made(one_layer, Execution(strict=True, token_budgets=256), max_length=max_length) as model:
        report = model.warmup()
    assert report.graphs == 1
    if max_length in (40, 41):
        assert (256, 40) in report.shapes


@pytest.mark.parametrize("changes", [{"dynamic": False}, {"dynamic": None}, {"deterministic": True}], ids=str)
def test_a_size_has_one_number_of_slots_where_another_may_cost_a_graph_or_change_a_bit(one_layer, changes):
    with made(one_layer, Execution(**changes)) as model:
        shapes = [batch.shape for batch in model.pipeline.every_shape(1)]
        assert len(shapes) == len({tokens for tokens, _ in shapes})
        assert len(shapes) == 1 or "dynamic" in changes
        assert {shape for pairs in REQUESTS for shape in slots_of(model, pairs)} <= set(shapes)


def test_executions_without_a_graph_choose_their_slots(one_layer):
    with made(one_layer, Execution(compile_mode=None)) as model:
        assert {slots for pairs in REQUESTS for _, slots in slots_of(model, pairs)} >= {42, 50, 66, 290}
