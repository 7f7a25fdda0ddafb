"""Scores do not depend on how pairs are ordered, padded, batched and compiled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import xenc
from correctness_tests import oracle, strategies
from correctness_tests.conftest import BATCH_SIZE
from correctness_tests.scoring import (
    TOLERANCE,
    assert_close,
    assert_oracles,
    logits,
    nothing_compiles,
    on_cpu,
)
from perf_tests import workloads
from xenc import PRESETS, Execution

Pairs = Sequence[tuple[str, str]]

SKEWED = [("a", "b " * (9 * index % 70)) for index in range(9)]
"""Every bucket of the tiny model, two full batches and a short one, in an order that sorting changes."""

EDGES = [("a", "b " * (count - 4)) for count in (4, 15, 16, 17, 63, 64, 65)]
"""Pairs of so many tokens."""

SECOND_PAIR_LONGER = [("x", ""), ("", ""), ("", "x " * 80), ("x", "")]


def some_prose(count: int) -> Pairs:
    """Pairs of which half are longer than the tiny model."""
    rounds = workloads.seed(pairs=count, batch_size=8).round(1)
    return [(query[:80], document[: 40 + 20 * index]) for index, (query, document) in enumerate(rounds)]


def test_the_models_under_test_tell_pairs_apart(tiny, minilm):
    for checkpoint, max_length in ((tiny, 64), (minilm, 512)):
        spread = oracle.logits(checkpoint, some_prose(24), max_length=max_length).std()
        assert 0.5 <= spread <= 2, checkpoint


@given(pairs=strategies.lists_of_pairs())
@example(pairs=[("", "")])
@example(pairs=SKEWED)
@example(pairs=[("", ""), *SKEWED, ("", "")])
@example(pairs=EDGES)
@example(pairs=SECOND_PAIR_LONGER)
@strategies.MANY
def test_compiled_and_eager_score_as_the_oracle_and_nothing_compiles(warm, eager, tiny, pairs):
    """Half the tolerance, so that no order, neighbour or duplicate moves a score by more than all of it."""
    expected = oracle.logits(tiny, pairs, max_length=64)
    with nothing_compiles():
        compiled = logits(warm, pairs, batch_size=BATCH_SIZE)
    assert_close(compiled, expected, TOLERANCE / 2)
    assert_close(logits(eager, pairs, batch_size=BATCH_SIZE), expected, TOLERANCE / 2)


@given(pairs=strategies.lists_of_pairs(), batch_size=st.integers(1, 7))
@example(pairs=SKEWED, batch_size=1)
@example(pairs=SKEWED, batch_size=9)
@strategies.FEW
def test_scores_do_not_depend_on_the_batch_size(eager, tiny, pairs, batch_size):
    assert_oracles(logits(eager, pairs, batch_size=batch_size), tiny, pairs)


@pytest.fixture(scope="module")
def executed(tiny):
    """One model per set of graph settings, so that executions which may share graphs do."""
    made: dict[object, xenc.CrossEncoder] = {}

    def execute(execution: Execution) -> xenc.CrossEncoder:
        if execution.graph_settings not in made:
            made[execution.graph_settings] = on_cpu(tiny, execution)
        made[execution.graph_settings].execution = execution
        return made[execution.graph_settings]

    return execute


OTHERS = {
    "buckets of 32": Execution(layout="bucketed", buckets=32),
    "buckets of powers of two": Execution(layout="bucketed", buckets="powers-of-two"),
    "one bucket": Execution(layout="bucketed", buckets="max-length"),
    "a graph per bucket": Execution(layout="bucketed", dynamic=False),
    "a graph per budget": Execution(dynamic=False),
}


def quick_or_slow(name: str, execution: Execution):
    """Modes that tune or record take a minute each, and are other graphs of the same arithmetic."""
    tuned = "autotune" in str(execution.compile_mode)
    return pytest.param(execution, id=name, marks=pytest.mark.slow if tuned else ())


HERE = {name: execution for name, execution in PRESETS.items() if execution.quantize is None}
"""Those that score as the oracle does with nothing but PyTorch."""


@pytest.mark.parametrize("execution", [quick_or_slow(*each) for each in (HERE | OTHERS).items()])
def test_every_execution_scores_as_the_oracle(executed, tiny, execution):
    pairs = [*SKEWED, *EDGES, *some_prose(5)]
    model = executed(execution)
    assert_oracles(logits(model, pairs, batch_size=BATCH_SIZE), tiny, pairs)
    report = model.last_report
    assert report.token_counts == tuple(model.pipeline.tokenize(pairs).counts)
    assert (report.pairs, report.truncated_pairs) == (len(pairs), _longer_than_64(tiny, pairs))


def test_a_request_that_fills_many_packed_batches_scores_as_the_oracle(tiny):
    pairs = [*SKEWED, *EDGES, *some_prose(24)]
    with on_cpu(tiny, Execution(token_budgets=(64, 128), compile_mode=None)) as model:
        assert_oracles(logits(model, pairs), tiny, pairs)
    assert model.last_report.batches > 5


def _longer_than_64(checkpoint, pairs: Pairs) -> int:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return sum(len(tokenizer([query], [document])["input_ids"][0]) > 64 for query, document in pairs)


@pytest.mark.parametrize("execution", ["sdpa-sorted", "packed-eager"])
def test_pretrained_weights_score_as_the_oracle(minilm, execution):
    pairs = workloads.short_query(batch_size=4).round(0)[:12]
    assert_oracles(logits(on_cpu(minilm, execution), pairs, batch_size=BATCH_SIZE), minilm, pairs, 512)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["bucketed", "packed"])
def test_pretrained_weights_compiled_score_as_the_oracle(minilm, execution):
    pairs = workloads.skewed(pairs=16, batch_size=4).round(0)
    model = on_cpu(minilm, execution)
    assert model.warmup(BATCH_SIZE, passes=1).graphs == 1
    with nothing_compiles():
        scores = logits(model, pairs, batch_size=BATCH_SIZE)
    assert_oracles(scores, minilm, pairs, 512)


def assert_bfloat16_law(model: xenc.CrossEncoder, checkpoint, device: str) -> None:
    pairs = [*SKEWED, *EDGES, *some_prose(24)]
    exact = oracle.logits(checkpoint, pairs, max_length=64, device=device)
    plain = oracle.logits(checkpoint, pairs, max_length=64, device=device, dtype=torch.bfloat16)
    reference = np.abs(plain - exact).max()
    band = 2 * torch.finfo(torch.bfloat16).eps * np.abs(exact).max()
    with nothing_compiles():
        fast = logits(model, pairs, batch_size=BATCH_SIZE)
    assert fast.dtype == np.float32
    assert np.abs(fast - exact).max() <= 2 * reference + band
    # and in the order of the pairs, which so wide a band might not notice
    assert np.corrcoef(fast, exact)[0, 1] > 0.99


def bfloat16_model(checkpoint, device: str, execution: str | Execution) -> xenc.CrossEncoder:
    return xenc.CrossEncoder(
        str(checkpoint), device=device, execution=execution, model_kwargs={"dtype": torch.bfloat16}
    )


@pytest.mark.parametrize("execution", ["sdpa-sorted", "bucketed", "packed"])
def test_bfloat16_errs_at_most_twice_as_much_as_plain_eager_execution(tiny, execution):
    model = bfloat16_model(tiny, "cpu", execution)
    model.warmup(BATCH_SIZE, passes=1)
    assert_bfloat16_law(model, tiny, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("layout", ["bucketed", "packed"])
def test_compiled_on_a_gpu_bfloat16_errs_at_most_twice_as_much_as_plain_eager_execution(tiny, layout, mode):
    model = bfloat16_model(tiny, "cuda", Execution(layout=layout, compile_mode=mode))
    model.warmup(BATCH_SIZE)
    assert_bfloat16_law(model, tiny, "cuda")
