"""Deterministic mode: scores are batch-invariant (bitwise)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import xenc
from correctness_tests.strategies import FEW
from perf_tests import workloads
from xenc import Execution
from xenc.serving.answer import Answer

ONE_SIZE = Execution(deterministic=True, token_budgets=512)
"""A small budget: more batches."""

Pairs = Sequence[tuple[str, str]]

POOL = [
    (query[:40], document[: 5 * index])
    for index, (query, document) in enumerate(workloads.seed(pairs=24, batch_size=8).round(4))
]
SOME = st.lists(st.sampled_from(POOL), min_size=1, max_size=60)


def made(checkpoint, execution: Execution, dtype: torch.dtype, device: str = "cpu") -> xenc.CrossEncoder:
    kwargs = {"dtype": dtype}
    return xenc.CrossEncoder(str(checkpoint), device=device, execution=execution, model_kwargs=kwargs)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request):
    return request.param


@pytest.fixture(scope="module", params=["default", None], ids=["compiled", "eager"])
def model(tiny, dtype, request):
    with made(tiny, replace(ONE_SIZE, compile_mode=request.param), dtype) as model:
        model.warmup(passes=1)
        yield model


@pytest.fixture(scope="module")
def alone(model):
    """The bits of every pair of the pool, each scored by itself."""
    return {pair: bits(model, [pair])[0] for pair in POOL}


def bits(model: xenc.CrossEncoder, pairs: Pairs) -> list[int]:
    return model.predict(list(pairs), activation_fn=torch.nn.Identity()).view(np.int32).tolist()


@given(pairs=SOME)
@example(pairs=POOL)
@example(pairs=POOL[::-1])
@FEW
def test_neighbours_and_order_change_no_bit(model, alone, pairs):
    assert bits(model, pairs) == [alone[pair] for pair in pairs]


@given(pairs=SOME, data=st.data())
@settings(FEW, suppress_health_check=[*FEW.suppress_health_check, HealthCheck.function_scoped_fixture])
def test_splitting_a_request_and_asking_at_once_change_no_bit(model, alone, pairs, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(pairs)), max_size=6)) | {len(pairs)})
    parts = [pairs[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
    with ThreadPoolExecutor(len(parts)) as threads:
        answers = list(threads.map(lambda part: bits(model, part), parts))
    assert answers == [[alone[pair] for pair in part] for part in parts]


@pytest.mark.parametrize("words", [0, 3, 11, 12, 28, 60])
def test_every_place_in_a_batch_gives_the_same_bits(model, words):
    pair = ("a", "b " * words)
    assert set(bits(model, [pair] * 150)) == set(bits(model, [pair]))


def test_several_sizes_stay_within_the_tolerance(tiny):
    with made(tiny, Execution(compile_mode=None), torch.float32) as model:
        logits = partial(model.predict, activation_fn=torch.nn.Identity())
        one_by_one, together = np.concatenate([logits([pair]) for pair in POOL]), logits(POOL * 20)
    np.testing.assert_allclose(together, np.tile(one_by_one, 20), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compile_mode", ["default", None])
def test_pretrained_weights_give_the_same_bits(minilm, dtype, compile_mode):
    pairs = workloads.short_query(batch_size=4).round(1)[:24]
    with made(minilm, replace(ONE_SIZE, token_budgets=1024, compile_mode=compile_mode), dtype) as model:
        model.warmup(passes=1)
        each = [bits(model, [pair])[0] for pair in pairs]
        assert bits(model, pairs) == each
        assert bits(model, pairs[::-1]) == each[::-1]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("compile_mode", [None, "default", "reduce-overhead"])
def test_on_a_gpu_neighbours_and_places_change_no_bit(tiny, dtype, compile_mode):
    execution = Execution(deterministic=True, compile_mode=compile_mode)
    with made(tiny, execution, dtype, "cuda") as model:
        model.warmup()
        alone = {pair: bits(model, [pair])[0] for pair in POOL}
        generator = np.random.default_rng(0)
        for size in (1, 2, 7, 40, 300, 2000):
            pairs = [POOL[index] for index in generator.integers(len(POOL), size=size)]
            assert bits(model, pairs) == [alone[pair] for pair in pairs]


def test_the_activation_keeps_the_bits():
    """A vectorised sigmoid may round the end of a tensor in another way than its middle."""
    wishes = {"apply_softmax": False, "num_labels": 1, "single": False, "tensor": True, "array": False}
    answer = Answer(activation_fn=torch.nn.Sigmoid(), one_by_one=True, **wishes)
    logits = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    together = answer.of(logits)
    assert torch.equal(answer.of(logits.flip(0)).flip(0), together)
    assert torch.equal(torch.cat([answer.of(row) for row in logits.split(1)]), together)


def test_a_deterministic_execution_applies_the_activation_to_one_row_at_a_time(tiny):
    shapes = []
    with made(tiny, replace(ONE_SIZE, compile_mode=None), torch.float32) as model:
        model.predict(
            [("a", "b"), ("c", "d")],
            activation_fn=lambda logits: shapes.append(tuple(logits.shape)) or logits,
        )
    assert shapes == [(1, 1), (1, 1)]
