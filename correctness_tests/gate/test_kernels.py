"""Kernels and memory of a pass: exact, the same each time, and seen on the thread that runs them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from perf_tests.device_thread import on_device_thread
from xenc import watch_compiles
from xenc.gate.growth import grown_calls
from xenc.profiling.kernels import name_compiled_kernels, profile_pass

PAIRS = [("a", "b " * words) for words in (1, 60, 5, 40, 20, 60, 2, 9)]

SETTINGS_BELONG_TO_A_THREAD = hasattr(torch.utils._config_module, "ContextVar")
"""Not in torch 2.11, where they are the process's."""


def counts(profiled):
    return {name: count for name, (count, _) in profiled.kernels.items()}


def assert_alike(profiles, peaks=True):
    for profiled in profiles:
        assert counts(profiled) == counts(profiles[0])
        assert profiled.peak_bytes == profiles[0].peak_bytes > 0 or not peaks


@pytest.fixture
def thread():
    """A thread that is older than any profiler of the test."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.ones, 2).result()
        yield lambda job: pool.submit(job).result()


@torch.inference_mode()
def test_kernels_are_the_operators_that_compute_and_one_more_is_counted_and_named():
    x = torch.ones(2, 64, 64)

    def encoder():
        hidden = torch.nn.functional.linear(x, torch.ones(64, 64)).relu()
        hidden = torch.nn.functional.dropout(hidden, 0.1, training=False)
        return torch.nn.functional.layer_norm(hidden.view(-1, 64).transpose(0, 1).contiguous(), (128,))

    base = profile_pass(encoder, device="cpu")
    assert counts(base) == {
        "aten::ones": 1, "aten::mm": 1, "aten::relu": 1, "aten::clone": 1, "aten::native_layer_norm": 1,
    }  # fmt: skip
    assert base.kernel_count == 5
    assert all(seconds > 0 for _, seconds in base.kernels.values())
    head = profile_pass(lambda: encoder().mul(1), device="cpu")
    assert head.kernel_count == 6
    assert grown_calls(head.kernels, base.kernels)[0].startswith("appeared: aten::mul x1 (")


def test_peak_memory_is_exact_to_the_byte():
    def run():
        first = torch.empty(1000, 1000)
        second = torch.empty(2_000_001, dtype=torch.uint8)
        del first
        third = torch.empty(500_000)
        del second, third
        torch.empty(10)

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no kernel"):
            profile_pass(run, device="cpu")
        assert profile_pass(lambda: (run(), torch.zeros(1)), device="cpu").peak_bytes == 6_000_001


def test_memory_that_an_earlier_pass_allocated_and_this_one_frees_counts_for_neither():
    kept = []
    first = profile_pass(lambda: kept.append(torch.zeros(1000)), device="cpu")
    second = profile_pass(lambda: (kept.clear(), torch.zeros(500)), device="cpu")
    assert (first.peak_bytes, second.peak_bytes) == (4000, 2000)


def test_a_pass_on_an_older_thread_is_seen_there_and_nowhere_else(thread):
    x = torch.ones(64, 64)

    def run():
        return thread(lambda: (x @ x).relu())

    profiled = profile_pass(run, device="cpu", on_device=thread)
    assert counts(profiled) == {"aten::mm": 1, "aten::relu": 1}
    assert profiled.peak_bytes == 2 * 64 * 64 * 4
    with pytest.raises(RuntimeError, match="another thread"):
        profile_pass(run, device="cpu")


@torch.inference_mode()
def profiled_batches(model, batch_size=4):
    """A pass of batches on the device's thread, not of requests, which may be cut otherwise; its logits."""
    tokens = model.pipeline.tokenize(PAIRS)
    batches = [
        model.pipeline.collator.collate(tokens.of_rows(batch.rows), batch)
        for batch in model.pipeline.plan(tokens, batch_size=batch_size).batches
    ]
    run = partial(model.pipeline.run, batches)
    return profile_pass(run, device="cpu", on_device=on_device_thread(model)), run(), len(batches)


def test_the_same_pass_has_the_same_kernels_and_peak_and_its_kernels_on_any_number_of_threads(eager):
    before, firsts = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            profiles = [profiled_batches(eager)[0] for _ in range(3)]
            assert_alike(profiles)
            firsts.append(profiles[0])
    finally:
        torch.set_num_threads(before)
    assert_alike(firsts, peaks=False)


def test_a_compiled_pass_or_prediction_is_the_same_each_time_and_profiling_it_compiles_nothing(warm):
    profiled_batches(warm)
    with watch_compiles() as watch:
        profiles = [profiled_batches(warm)[0] for _ in range(3)]
    assert watch.report.clean, watch.report.describe()
    assert_alike(profiles)
    whole = [
        profile_pass(
            lambda: warm.predict(PAIRS, batch_size=4), device="cpu", on_device=on_device_thread(warm)
        )
        for _ in range(3)
    ]
    assert_alike(whole, peaks=False)


def test_inductors_kernels_are_counted_on_the_thread_that_was_told_to_name_them(thread):
    def run():
        return thread(lambda: compiled(x))

    x = torch.ones(64, 64)
    compiled = torch.compile(lambda x: (x @ x).relu().softmax(-1), dynamic=False)
    settings = torch._inductor.config
    with settings.patch({"cpp.enable_kernel_profile": False}):
        thread(name_compiled_kernels)
        run()
        everywhere = settings.cpp.enable_kernel_profile
    profiled = profile_pass(run, device="cpu", on_device=thread)
    assert everywhere == (not SETTINGS_BELONG_TO_A_THREAD)
    assert counts(profiled)["aten::mm"] == 1
    (fused,) = [name for name in profiled.kernels if "cpp_fused" in name]
    assert profiled.kernel_count == 2
    renumbered = {fused.replace("graph_0", "graph_7").replace("_0", "_3"): profiled.kernels[fused]}
    assert grown_calls(renumbered, profiled.kernels) == ()


def test_a_failed_pass_leaves_no_profiler_behind():
    with pytest.raises(KeyError):
        profile_pass(lambda: {}["absent"], device="cpu")
    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        torch.ones(1)
