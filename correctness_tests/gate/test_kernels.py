"""Kernels and memory of a pass: exact, the same each time, and seen on the thread that runs them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from perf_tests.device_thread import on_device_thread
from xenc import watch_compiles
from xenc.gate.exact import changed_facts
from xenc.gate.paired.growth import grown_kernels
from xenc.profiling.kernels import name_compiled_kernels, profile_pass

PAIRS = [("a", "b " * words) for words in (1, 60, 5, 40, 20, 60, 2, 9)]

SETTINGS_BELONG_TO_A_THREAD = hasattr(torch.utils._config_module, "ContextVar")
"""Not in torch 2.11, where they are the process's."""


def counts(profiled):
    return {name: count for name, (count, _) in profiled.kernels.items()}


@pytest.fixture
def thread():
    """A thread that is older than any profiler of the test."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.ones, 2).result()
        yield lambda job: pool.submit(job).result()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def encoder(x):
    weight = torch.ones(64, 64)
    hidden = torch.nn.functional.linear(x, weight).relu()
    hidden = torch.nn.functional.dropout(hidden, 0.1, training=False)
    return torch.nn.functional.layer_norm(hidden.view(-1, 64).transpose(0, 1).contiguous(), (128,))


@torch.inference_mode()
def test_kernels_are_what_computes():
    x = torch.ones(2, 64, 64)
    profiled = profile_pass(lambda: encoder(x), device="cpu")
    assert counts(profiled) == {
        "aten::ones": 1, "aten::mm": 1, "aten::relu": 1, "aten::clone": 1, "aten::native_layer_norm": 1,
    }  # fmt: skip
    assert profiled.kernel_count == 5
    assert all(seconds > 0 for _, seconds in profiled.kernels.values())


@torch.inference_mode()
def test_a_kernel_more_is_counted_exactly_and_named():
    x = torch.ones(2, 64, 64)
    base = profile_pass(lambda: encoder(x), device="cpu")
    head = profile_pass(lambda: encoder(x).mul(1), device="cpu")
    assert head.kernel_count == base.kernel_count + 1
    (appeared, *_) = grown_kernels(head.kernels, base.kernels)
    assert appeared.startswith("appeared: aten::mul x1 (")


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


def test_a_twentieth_more_memory_is_seen():
    def run(extra):
        held = torch.zeros(100_000 + extra)
        return held.sum()

    base = profile_pass(lambda: run(0), device="cpu").peak_bytes
    head = profile_pass(lambda: run(5_000), device="cpu").peak_bytes
    (line,) = changed_facts({"peak_bytes": head}, {"peak_bytes": base}).worse
    assert line.endswith("(+5.0%)")


def test_a_pass_on_an_older_thread_is_seen_there_and_nowhere_else(thread):
    x = torch.ones(64, 64)

    def run():
        return thread(lambda: (x @ x).relu())

    profiled = profile_pass(run, device="cpu", on_device=thread)
    assert counts(profiled) == {"aten::mm": 1, "aten::relu": 1}
    assert profiled.peak_bytes == 2 * 64 * 64 * 4
    with pytest.raises(RuntimeError, match="another thread"):
        profile_pass(run, device="cpu")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_pass_has_the_same_counts_and_peak(eager, two_threads, threads):
    torch.set_num_threads(threads)
    profiles = [profiled_prediction(eager) for _ in range(3)]
    assert len({tuple(sorted(counts(profiled).items())) for profiled in profiles}) == 1
    assert len({profiled.peak_bytes for profiled in profiles}) == 1
    assert profiles[0].peak_bytes > 0


def test_kernels_do_not_depend_on_the_number_of_threads(eager, two_threads):
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(counts(profiled_prediction(eager)))
    assert found[0] == found[1]


@torch.inference_mode()
def profiled_prediction(model):
    """Batches on the device's thread: how requests are cut into batches is not this test's affair."""
    tokens = model.pipeline.tokenize(PAIRS)
    batches = [
        model.pipeline.collator.collate(tokens.of_rows(batch.rows), batch)
        for batch in model.pipeline.plan(tokens, batch_size=4).batches
    ]
    return profile_pass(lambda: model.pipeline.run(batches), device="cpu", on_device=on_device_thread(model))


def test_a_compiled_pass_is_the_same_each_time_and_profiling_it_compiles_nothing(warm):
    profiled_prediction(warm)
    with watch_compiles() as watch:
        profiles = [profiled_prediction(warm) for _ in range(3)]
    assert watch.report.clean, watch.report.describe()
    assert len({tuple(sorted(counts(profiled).items())) for profiled in profiles}) == 1
    assert len({profiled.peak_bytes for profiled in profiles}) == 1


def test_a_whole_prediction_has_the_same_counts_each_time(warm):
    on_device = on_device_thread(warm)
    profiles = [
        profile_pass(lambda: warm.predict(PAIRS, batch_size=4), device="cpu", on_device=on_device)
        for _ in range(3)
    ]
    assert len({tuple(sorted(counts(profiled).items())) for profiled in profiles}) == 1


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
    assert grown_kernels(renumbered, profiled.kernels) == ()


def test_a_failed_pass_leaves_no_profiler_behind():
    with pytest.raises(KeyError):
        profile_pass(lambda: {}["absent"], device="cpu")
    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        torch.ones(1)


def test_grown_kernels_are_named_the_new_first():
    base = {"aten::mm": (12, 0.5), "aten::add": (3, 0.0031), "aten::gone": (9, 1.0), "aten::same": (1, 0.2)}
    head = {"aten::mm": (24, 0.4), "aten::add": (3, 0.0044), "aten::new": (2, 0.0013), "aten::same": (1, 0.2)}
    assert grown_kernels(head, base) == (
        "appeared: aten::new x2 (1.3 ms)",
        "more often: aten::mm 12 -> 24",
        "slower: aten::add 3.1 ms -> 4.4 ms",
    )


def test_only_the_few_kernels_that_slowed_most_are_named():
    base = {f"k{number}": (1, 1.0) for number in range(9)}
    head = {f"k{number}": (1, 1.0 + number) for number in range(9)}
    lines = grown_kernels(head, base)
    assert [line.split()[1] for line in lines] == ["k8", "k7", "k6"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("xenc_head::packed_attention", "xenc_base::packed_attention"),
        ("xenc_same::packed_attention", "xenc::packed_attention"),
        ("xenc_head_kernels::linear", "xenc_base_kernels::linear"),
        ("xenc_slowed_kernels::attention", "xenc_kernels::attention"),
        ("triton_poi_fused_add_3", "triton_poi_fused_add_12"),
        ("graph_4_cpp_fused_add_7", "cpp_fused_add_0"),
    ],
)
def test_two_revisions_names_of_one_kernel_match(ours, theirs):
    assert grown_kernels({ours: (1, 1.0)}, {theirs: (1, 1.0)}) == ()


def test_names_made_alike_add_up():
    base = {"triton_add_0": (1, 1.0), "triton_add_1": (2, 1.0)}
    assert grown_kernels({"triton_add_5": (4, 1.0)}, base) == ("more often: triton_add 3 -> 4",)


def test_numbers_that_others_kernels_end_in_are_part_of_their_names():
    assert grown_kernels({"gemm_64": (1, 1.0)}, {"gemm_128": (1, 1.0)}) == (
        "appeared: gemm_64 x1 (1000.0 ms)",
    )
