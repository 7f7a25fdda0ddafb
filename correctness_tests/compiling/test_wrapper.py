"""The torch.compile wrapper: one graph for all shapes, and late compilations are reported."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from operator import is_

import numpy as np
import pytest
import torch
from torch._inductor import cudagraph_trees

import xenc
import xenc.compiling.wrapper as compiled_room
from correctness_tests.scoring import assert_close, nothing_compiles, on_cpu
from correctness_tests.waiting import SOON
from xenc import CompileError, Execution
from xenc.batching.padded_collate import Collator
from xenc.compiling.wrapper import CompiledForward, make_room_for_cudagraphs
from xenc.models.forward import classify

PAIRS = [("a", "b " * words) for words in (1, 20, 40, 60, 5)]
LAX = Execution(layout="bucketed", buckets=32)
STRICT = replace(LAX, strict=True)


@pytest.fixture(scope="module")
def strict(one_layer):
    model = on_cpu(one_layer, STRICT)
    model.warmup(batch_size=2, passes=1)
    return model


@contextmanager
def changed_global_state() -> Iterator[None]:
    """Every graph guards on this, so each is recompiled."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize(
    ("fields", "on_cuda", "on_cpu"),
    [
        ({}, "reduce-overhead", "default"),
        ({"layout": "bucketed"}, "reduce-overhead", "default"),
        ({"share_prefix": True}, "default", "default"),
        ({"compile_mode": "default"}, "default", "default"),
        ({"compile_mode": "max-autotune"}, "max-autotune", "max-autotune"),
        ({"compile_mode": None}, None, None),
    ],
)
def test_cuda_graphs_are_recorded_on_cuda_unless_a_prefix_is_shared(fields, on_cuda, on_cpu):
    execution = Execution(**fields)
    assert (execution.compile_mode_on("cuda"), execution.compile_mode_on("cpu")) == (on_cuda, on_cpu)


def test_warm_up_compiles_one_graph_for_all_shapes(one_layer):
    model = on_cpu(one_layer, LAX)
    report = model.warmup(batch_size=2, passes=1)
    assert report.shapes == ((2, 64), (2, 32))
    assert report.graphs == model.pipeline.compiled.graphs == 1
    again = model.warmup(batch_size=2, passes=1)
    assert again.graphs == 0
    assert report.seconds > again.seconds > 0


GRAPHS = {
    "buckets of 16": ({}, 3, {1}),
    "as many rows as tokens": ({}, 16, {1}),
    "buckets of 32": ({"buckets": 32}, 3, {1}),
    "powers of two": ({"buckets": "powers-of-two"}, 3, {1}),
    "max length": ({"buckets": "max-length"}, 3, {1}),
    "a graph per bucket": ({"dynamic": False}, 3, {4}),  # up to 64 tokens
    # PyTorch specializes on the first shape, unless it remembers that others follow
    "automatic": ({"dynamic": None}, 3, {1, 2}),
}
"""Fields of a bucketed execution, the batch size, and how many graphs the warm-up may compile."""


@pytest.mark.parametrize(("fields", "batch_size", "graphs"), GRAPHS.values(), ids=GRAPHS)
def test_nothing_compiles_after_warm_up_whatever_the_buckets(one_layer, fields, batch_size, graphs):
    model = on_cpu(one_layer, Execution(layout="bucketed", strict=True, **fields))
    assert model.warmup(batch_size=batch_size, passes=1).graphs in graphs
    with nothing_compiles():
        for count in range(1, 8):
            model.predict((PAIRS + PAIRS)[:count], batch_size=batch_size)
            model.predict((PAIRS + PAIRS)[-count:], batch_size=batch_size)


def test_strict_mode_raises_with_the_guards_reason_and_works_on(strict):
    before = strict.predict(PAIRS, batch_size=2)
    with changed_global_state(), pytest.raises(CompileError, match=r"(?i)deterministic.*model\.warmup\("):
        strict.predict(PAIRS, batch_size=2)
    np.testing.assert_array_equal(strict.predict(PAIRS, batch_size=2), before)


def test_strict_mode_raises_for_a_batch_size_that_was_not_warmed_up(strict):
    # 1 is the size that torch.compile never generalises to
    with pytest.raises(CompileError, match=r"compiled: .*model\.warmup\(batch_size="):
        strict.predict(PAIRS, batch_size=1)


def test_otherwise_a_late_compile_is_one_warning(one_layer, caplog):
    lax = on_cpu(one_layer, LAX)
    lax.warmup(batch_size=2, passes=1)
    expected = lax.predict(PAIRS, batch_size=2)
    caplog.clear()
    with changed_global_state():
        scores = [lax.predict(PAIRS, batch_size=2) for _ in range(2)]
    lax.predict(PAIRS, batch_size=1)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "after warm-up" in warnings[0].message
    assert "eterministic" in warnings[0].message
    assert_close(scores, [expected] * 2, 1e-5)


def test_compiling_before_warm_up_causes_no_warning(one_layer, caplog):
    model = on_cpu(one_layer, STRICT)
    model.predict(PAIRS, batch_size=2)
    assert model.pipeline.compiled.graphs >= 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_strictness_can_be_changed_on_graphs_that_are_kept(one_layer):
    model = on_cpu(one_layer, LAX)
    model.warmup(batch_size=2, passes=1)
    graphs = model.pipeline.compiled
    model.execution = STRICT
    assert model.pipeline.compiled is graphs
    with changed_global_state(), pytest.raises(CompileError):
        model.predict(PAIRS, batch_size=2)


def test_two_wrappers_of_one_model_compile_graphs_of_their_own(one_layer):
    model = on_cpu(one_layer, LAX).transformers_model
    collator = Collator(pad_id=0, has_token_types=True, device=torch.device("cpu"))
    small, large = (collator.dummy(shape) for shape in ((2, 8), (3, 8)))
    first, second = (CompiledForward(classify, model, LAX) for _ in range(2))
    with torch.inference_mode():
        assert first.warmup([small]).graphs == 1
        assert (first.graphs, second.graphs) == (1, 0)
        assert second.warmup([small, large]).graphs == 1
    assert (first.graphs, second.graphs) == (1, 1)


def test_one_graph_per_shape_may_be_more_than_pytorchs_limit(one_layer, dynamo_alone):
    static = Execution(layout="bucketed", buckets=1, dynamic=False, strict=True)
    model = on_cpu(one_layer, static, max_length=11)
    assert torch._dynamo.config.recompile_limit < 11
    assert model.warmup(batch_size=3, passes=1).graphs == 11
    with nothing_compiles():
        scores = model.predict([("a", "b " * words) for words in range(10)], batch_size=3)
    model.execution = "sdpa-sorted"
    eager = model.predict([("a", "b " * words) for words in range(10)], batch_size=3)
    assert_close(scores, eager, 1e-5)


def test_two_that_warm_up_at_once_leave_pytorchs_limits_as_they_were(one_layer, monkeypatch):
    """The first to start ends first, if PyTorch lets both run."""
    first, second = (CompiledForward(classify, on_cpu(one_layer, LAX).transformers_model, LAX) for _ in "ab")
    begun = {first: threading.Event(), second: threading.Event()}
    ended = threading.Event()

    def call(self, batch):
        begun[self].set()
        if self is first:
            begun[second].wait(0.5)
        else:
            ended.wait(5)
        return torch.zeros(2, 1)

    monkeypatch.setattr(CompiledForward, "_call", call)
    before = torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit
    batch = Collator(pad_id=0, has_token_types=True, device=torch.device("cpu")).dummy((2, 8))
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first, batch)
        begun[first].wait(5)
        other = pool.submit(second, batch)
        one.result()
        ended.set()
        other.result()
    assert (torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit) == before


def test_any_thread_has_room_for_cuda_graphs_of_its_own():
    """Which PyTorch keeps by thread."""

    def room() -> list[object]:
        make_room_for_cudagraphs()
        names = ("tree_manager_containers", "tree_manager_locks")
        found = [[cudagraph_trees.get_obj(cudagraph_trees.local, name) for name in names] for _ in "ab"]
        make_room_for_cudagraphs()
        assert all(map(is_, *found))
        return found[0]

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        first, second, here = one.submit(room).result(), other.submit(room).result(), room()
    assert not any(map(is_, first, second))
    assert not any(map(is_, first, here))


def global_settings() -> dict[str, object]:
    return {
        "dynamo": torch._dynamo.config.get_config_copy(),
        "inductor": torch._inductor.config.get_config_copy(),
        "dtype": torch.get_default_dtype(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "matmul": (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "sdpa": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()),
        "random": torch.get_rng_state().tolist(),
    }


def test_no_setting_of_the_process_is_left_changed(one_layer):
    before = global_settings()
    model = on_cpu(one_layer, LAX)
    model.warmup(batch_size=2, passes=1)
    model.predict(PAIRS, batch_size=2)
    model.execution = "eager-sorted"
    model.predict(PAIRS, batch_size=2)
    after = global_settings()
    changed = [name for name in before if before[name] != after[name]]
    assert changed == []


@pytest.mark.gpu
def test_a_shape_that_records_a_cuda_graph_after_warm_up_is_an_error(one_layer):
    execution = replace(STRICT, compile_mode="reduce-overhead")
    model = xenc.CrossEncoder(str(one_layer), device="cuda", execution=execution)
    model.warmup(batch_size=2)
    model.predict(PAIRS, batch_size=2)
    with pytest.raises(CompileError, match=r"recorded a CUDA graph|compiled"):
        model.predict(PAIRS, batch_size=3)


def test_a_shape_that_has_run_does_not_wait_for_another_models_compilation(one_layer, dynamo_alone):
    """Not even without a warm-up."""
    with on_cpu(one_layer, "packed") as model:
        first = model.predict(("a question", "a document"))
        with compiled_room._SETTING:
            assert model.submit(("a question", "a document")).result(timeout=SOON) == first
