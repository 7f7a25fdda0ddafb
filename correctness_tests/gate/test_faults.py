"""The faults that show the gate red: each does to a model what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perf_tests.faults import inject
from xenc import CrossEncoder, watch_compiles

PAIRS = [("a", "b " * words) for words in (1, 60, 5, 40, 20, 60, 2, 9)]


@pytest.fixture(params=["sdpa-sorted", "packed-eager"])
def model(tiny, request):
    with CrossEncoder(str(tiny), device="cpu", execution=request.param) as model:
        yield model


@pytest.mark.parametrize("fraction", [0.3, 1.0, 2.5])
def test_slow_is_so_much_more_device_work_for_the_same_scores(model, fraction):
    expected = model.predict(PAIRS, batch_size=2)
    tokens, forward = [], model.pipeline.forward

    def counted(batch):
        tokens.append(batch.input_ids.numel())
        return forward(batch)

    model.pipeline.forward = counted
    model.predict(PAIRS, batch_size=2)
    sound = sum(tokens)
    tokens.clear()
    inject(f"slow:{fraction}", model)
    for _ in range(10):
        np.testing.assert_array_equal(model.predict(PAIRS, batch_size=2), expected)
    assert sum(tokens) / (10 * sound) == pytest.approx(1 + fraction, rel=0.03)


def test_recompile_compiles_within_the_next_prediction(tiny):
    model = CrossEncoder(str(tiny), device="cpu", execution="bucketed", max_length=32)
    model.warmup(batch_size=2, passes=1)
    for _ in range(2):
        sound = model.pipeline.forward
        inject("recompile", model)
        with watch_compiles() as watch:
            model.predict(PAIRS, batch_size=2)
        model.pipeline.forward = sound
        assert watch.report.graphs == 2
        assert any("eterministic" in reason for reason in watch.report.recompiles)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_unknown_fault_lists_the_known(model):
    with pytest.raises(ValueError, match="know slow:FRACTION and recompile"):
        inject("lazy", model)
