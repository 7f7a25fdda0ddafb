"""Findings, reports and classes of kernels, by made-up numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain

import pytest

from xenc import PRESETS, Execution, PredictReport
from xenc.profiling.findings import findings
from xenc.profiling.flops import Peak
from xenc.profiling.kernel_names import CLASSES, by_class, class_of, shares_by_class
from xenc.profiling.profile import PassProfile, Profile
from xenc.profiling.report import markdown, table

LAUNCHED = Execution(compile_mode="default")
BUSY = Profile(
    model="a-model", described="Execution packed (packed batches) on cuda.", execution=LAUNCHED,
    max_length=512, device="cuda", dtype="bfloat16", fastest_dtype="bfloat16",
    report=PredictReport(
        pairs=100, truncated_pairs=0, token_counts=(100,) * 100, all_tokens=10_200, waste=0.02, batches=2
    ),
    seconds=(0.010, 0.010, 0.010),
    stages={"tokenize": 0.003, "plan": 0.0001, "collate": 0.0004, "forward": 0.0093, "collect": 0.0001},
    traced=PassProfile(
        wall_s=0.020, busy_s=0.0095, kernels={"nvjet_tst_64x8": (48, 0.007), "triton_poi_0": (60, 0.0025)},
        peak_bytes=0, region_calls=2, cudagraph_launches=0,
    ),
    warmup_s=9.0, graphs=1, cudagraph_skips=0, flops=3e12, gemm_s=0.006,
    peak=Peak(flops_per_s=989.4e12, source="datasheet of H200"),
)  # fmt: skip
"""A GPU with nothing to complain of."""


def changed(report=(), traced=(), **changes):
    parts = {"report": replace(BUSY.report, **dict(report)), "traced": replace(BUSY.traced, **dict(traced))}
    return replace(BUSY, **parts, **changes)


NOT_COMPILED, RECORDING = Execution(compile_mode=None), Execution(compile_mode="reduce-overhead")
WASTED = {"all_tokens": 14_000, "waste": 0.286}
REPLAYED = changed(execution=RECORDING, traced={"cudagraph_launches": 2, "busy_s": 0.006})
UNNAMED = changed(device="cpu", traced={"kernels": {"aten::mm": (9, 0.001)}})

SAID = [
    (BUSY, "1 compiled region a batch: the whole forward pass is one graph", None),
    (BUSY, "A kernel ran 95% of the time, 108 kernels of 88 microseconds on average: the device", None),
    (BUSY, "would take 60% of the time: nothing in this dtype can become more than 1.7", None),
    (BUSY, "MFU is 30% of the device's peak", None),
    (changed(execution=NOT_COMPILED, traced={"region_calls": 0}),
     "Nothing is compiled: PyTorch launches 54 kernels a batch", "--execution packed"),
    (changed(traced={"region_calls": 0}), "the forward pass ran eagerly", "TORCH_COMPILE_DISABLE"),
    (changed(graphs=4), "4 graphs are kept", None),
    (changed(traced={"busy_s": 0.006}), "idle the other 40%",
     "the device waits for the host 40% of the time: try --execution packed"),
    (changed(traced={"busy_s": 0.003}, stages={**BUSY.stages, "tokenize": 0.009, "forward": 0.003}),
     "idle the other 70%", "tokenizing took 90%"),
    (REPLAYED, "1 CUDA graph replay(s) a batch", None),
    (REPLAYED, "idle the other 40%", "40% of the time even with CUDA graphs"),
    (changed(execution=RECORDING, cudagraph_skips=1),
     "No CUDA graph was replayed, though 'reduce-overhead' records them; 1 region(s)", "perf_hints"),
    (changed(device="cpu", execution=RECORDING, traced={"kernels": {"cpp_fused": (9, 0.01)}}),
     "which cpu does not have", None),
    (changed(dtype="float32"), "Products in float32 take 60% of the time", "--dtype bfloat16"),
    (changed(fastest_dtype="float32"), "no instructions for bfloat16", "--dtype float32"),
    (changed(execution=replace(LAUNCHED, layout="bucketed"), report=WASTED),
     "28.6% of the tokens that the device processed were padding", "--execution packed"),
    (changed(report=WASTED), "28.6% of the tokens", "2 batch(es) held 10000 tokens"),
    (changed(report={"truncated_pairs": 12}), "12 of 100 pairs were cut at 512 tokens", None),
    (changed(seconds=(0.010, 0.012, 0.010)), "differ by 12%", "--repeats"),
    (changed(traced={"kernels": {"flash_fwd_kernel": (12, 0.006), "nvjet": (48, 0.004)}}),
     "60% of the kernels' time is attention", "here 100"),
    (changed(execution=NOT_COMPILED, traced={"kernels": {"memcpy HtoD": (9, 0.002), "nvjet": (48, 0.008)}}),
     "20% of the kernels' time is copies", "a compiled execution"),
    (UNNAMED, "The compiled kernels have no names", "xenc profile"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "says", "hint"), SAID, ids=[says[:40] for _, says, _ in SAID])
def test_each_finding_has_its_hint_and_each_hint_a_measured_number(profile, says, hint):
    (finding,) = [finding for finding in findings(profile) if says in finding.says]
    assert (finding.hint is None) == (hint is None)
    assert hint is None or hint in finding.hint
    for said, advice in findings(profile):
        assert advice is None or profile is UNNAMED or re.search(r"\d", said + advice), said
        assert set(re.findall(r"--execution ([\w-]+)", advice or "")) <= PRESETS.keys()


def test_a_profile_with_nothing_to_complain_of_gives_no_advice():
    assert [finding.hint for finding in findings(BUSY)] == [None, None, None]


def test_busy_shares_are_of_the_timed_passes_on_a_gpu_and_of_the_traced_one_on_a_cpu():
    assert BUSY.busy_share == pytest.approx(0.95)
    on_cpu = changed(device="cpu", traced={"kernels": {"graph_0_cpp_fused_add_1": (9, 0.01)}})
    assert on_cpu.busy_share == pytest.approx(0.475)
    assert changed(traced={"busy_s": 0.011}).busy_share == 1.0
    assert UNNAMED.busy_share is None


def test_shares_of_the_limit_are_of_the_median_pass():
    profile = replace(BUSY, seconds=(0.5, 0.012, 0.010))
    assert profile.mfu == pytest.approx(3e12 / (0.012 * 989.4e12))
    assert profile.gemm_share == pytest.approx(0.5)
    assert replace(BUSY, seconds=(0.01,)).spread == 0.0


NAMES = {
    "matrix products": [
        "aten::addmm", "aten::mm", "aten::bmm", "aten::linear", "mkldnn::_linear_pointwise", "aten::_int_mm",
        "aten::_scaled_mm", "mkl::_mkl_linear", "nvjet_tst_128x64_64x8_1x2_h_bz_TNT",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>",
        "triton_tem_fused_addmm_gelu_3", "graph_2_cpp_packed_gemm_4",
        "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128>",
        "ampere_sgemm_32x128_tn",
    ],
    "attention": [
        "aten::_scaled_dot_product_flash_attention_for_cpu", "xenc::packed_attention",
        "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 64>>",
        "fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "triton_tem_fused_flex_attention_0",
        "packed_attention_kernel",
    ],
    "normalisation/elementwise": [
        "aten::native_layer_norm", "aten::_softmax", "aten::gelu", "aten::add", "aten::mul_", "aten::tanh",
        "aten::sum", "aten::where", "aten::isnan", "aten::segment_reduce",
        "triton_red_fused_native_layer_norm_0",
        "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>",
        "graph_0_cpp_fused_addmm_gelu_view_2", "triton_poi_fused__scaled_dot_product_flash_attention_copy_1",
    ],
    "copies": [
        "aten::copy_", "aten::clone", "aten::cat", "aten::_to_copy", "aten::fill_", "aten::zeros",
        "aten::embedding", "aten::index", "memcpy HtoD", "memcpy DtoD", "memset",
        "aten::index_select", "aten::gather",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>",
        "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<long>>",
        "void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16, long>",
        "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float>",
    ],
    "other": ["aten::bernoulli_", "ncclDevKernel_Broadcast", "a kernel from elsewhere"],
}  # fmt: skip


def test_a_kernels_class_follows_from_its_name():
    for kind, names in NAMES.items():
        assert {name: class_of(name) for name in names} == dict.fromkeys(names, kind)


def test_classes_lose_no_launch_and_no_second():
    kernels = {name: (count, 0.5) for count, name in enumerate(chain(*NAMES.values()), 1)}
    classes = by_class(kernels)
    assert list(classes) == list(CLASSES)
    assert sum(count for count, _ in classes.values()) == sum(count for count, _ in kernels.values())
    assert sum(seconds for _, seconds in classes.values()) == 0.5 * len(kernels)
    assert sum(shares_by_class(kernels).values()) == pytest.approx(1)


def test_a_tables_columns_are_as_wide_in_every_row_with_numbers_on_the_right():
    assert table(["what", "ms"], [["a", "1.5"], ["longer", "10.5"]]).split("\n") == [
        "| what   |   ms |",
        "| ------ | ---: |",
        "| a      |  1.5 |",
        "| longer | 10.5 |",
    ]


def test_a_kernels_name_cannot_break_the_table():
    kernels = {"void kernel<a|b, `c`>" + 100 * "x": (1, 0.5), "nvjet": (2, 0.25), "third": (3, 0.125)}
    report = markdown(changed(traced={"kernels": kernels}), top=2)
    (row,) = [line for line in report.split("\n") if "void kernel" in line]
    assert row.count("|") == 6
    assert "1 more kernel(s)" in report
    assert "third" not in report


def test_the_report_says_what_was_measured_and_where_the_peak_is_from():
    report = markdown(BUSY)
    for text in ("10,000.0", "1,000,000", "2.0%", "datasheet of H200", "989.4 TFLOP/s", "nothing compiled"):
        assert text in report
