"""What a measuring process must not take for granted: equal weights, a compiled graph, a forward pass."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from perf_tests.against import ON_CPU
from perf_tests.arms import Arm
from perf_tests.ready_models import share_weights
from xenc.compiling.watch import watch_compiles

CONFIGURATION = ON_CPU.configurations[0]


def linear(dtype=torch.float32, features=3):
    torch.manual_seed(0)
    return torch.nn.Linear(features, 2).to(dtype)


def test_equal_weights_are_shared():
    ours, theirs = linear(), linear()
    assert share_weights(ours, theirs)
    assert ours.weight.data_ptr() == theirs.weight.data_ptr()


def changed(model):
    with torch.no_grad():
        model.weight[0, 0] += 1e-3
    return model


def transposed(model):
    model.weight.data = model.weight.data.t().contiguous().t()
    return model


@pytest.mark.parametrize(
    "ours",
    [linear(torch.bfloat16), linear(features=4), changed(linear()), transposed(linear())],
    ids=["dtype", "shape", "value", "layout"],
)
def test_weights_that_a_revision_loads_otherwise_stay_its_own(ours):
    theirs, before = linear(), ours.weight.detach().clone()
    assert not share_weights(ours, theirs)
    assert ours.weight.data_ptr() != theirs.weight.data_ptr()
    assert torch.equal(ours.weight, before)
    assert ours.weight.dtype == before.dtype


def arm(*, compile_mode, graphs, device_s=0.1):
    with watch_compiles() as watch:
        pass
    pipeline = SimpleNamespace(compiled=None if graphs is None else SimpleNamespace(graphs=graphs))
    model = SimpleNamespace(
        pipeline=pipeline,
        execution=SimpleNamespace(compile_mode=compile_mode),
        predict=lambda pairs, **_: None,
    )
    ready = SimpleNamespace(
        model=model, device="cpu", warmup=watch.report, begin=lambda: None, device_seconds=lambda: device_s
    )
    return Arm(ready, CONFIGURATION, other="/elsewhere")


@pytest.mark.parametrize("graphs", [0, None])
def test_a_compiled_execution_without_a_graph_is_not_measured(graphs):
    with pytest.raises(RuntimeError, match="no graph: is Dynamo disabled"):
        arm(compile_mode="default", graphs=graphs).facts()


def test_graphs_are_counted_and_an_eager_execution_needs_none():
    assert arm(compile_mode="default", graphs=2).facts()["graphs"] == 2
    assert arm(compile_mode=None, graphs=None).facts()["graphs"] == 0


def test_a_block_that_never_reached_the_forward_pass_is_no_block():
    assert arm(compile_mode=None, graphs=None).run([("a", "b")]) == 0.1
    with pytest.raises(RuntimeError, match="never reached"):
        arm(compile_mode=None, graphs=None, device_s=0.0).run([("a", "b")])


def noted(text, first, then):
    """What two arms count of one fallback that both are shown, one after the other."""
    with watch_compiles() as watch:
        pass
    arms = [
        Arm(arm(compile_mode=None, graphs=None).ready, CONFIGURATION, other=other) for other in (first, then)
    ]
    for each in arms:
        each._note(replace(watch.report, eager_fallbacks=(text,)))
    return [each.counts["eager_fallbacks"] for each in arms]


def test_an_exhausted_function_belongs_to_its_own_revision_or_to_whom_it_happened():
    used_up = "has used up its recompile limit; every further shape runs eagerly"
    assert noted(f"f (/tmp/head/xenc/a.py:1) {used_up}", "/tmp/head", "/tmp/base") == [0, 1]
    assert noted(f"f (/elsewhere/b.py:1) {used_up}", "/tmp/head", "/tmp/base") == [1, 0]
    assert noted("Dynamo gave up on 1 frame(s)", "/tmp/head", "/tmp/base") == [1, 1]
