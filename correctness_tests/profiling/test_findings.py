"""Numbers -> sentences, names -> classes: the pure half of profiling, by numbers that are made up."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from xenc.profiling.facts import Compilation, Limit, Profile, Subject, Traced, Work
from xenc.profiling.findings import findings
from xenc.profiling.kernel_names import (
    ATTENTION,
    CLASSES,
    COPIES,
    ELEMENTWISE,
    MATRIX_PRODUCTS,
    OTHER,
    by_class,
    class_of,
)
from xenc.profiling.report import markdown, table

BUSY = Profile(
    subject=Subject(
        model="a-model", execution="packed", layout="packed", compile_mode="default", device="cuda",
        device_name="H200", dtype="bfloat16", fastest_dtype="bfloat16", threads=4, torch="2.13.0",
    ),
    work=Work(pairs=100, truncated_pairs=0, max_length=512, tokens=10_000, all_tokens=10_200, batches=2),
    seconds=(0.010, 0.010, 0.010),
    stages={"tokenize": 0.003, "plan": 0.0001, "collate": 0.0004, "forward": 0.0093, "collect": 0.0001},
    traced=Traced(
        wall_s=0.020, busy_s=0.0095, kernels={"nvjet_tst_64x8": (48, 0.007), "triton_poi_0": (60, 0.0025)},
        batches=2, region_calls=2, cudagraph_launches=0,
    ),
    compilation=Compilation(graphs=1, warmup_s=9.0, graph_breaks=(), cudagraph_skips=0, eager_fallbacks=()),
    limit=Limit(flops=3e12, peak_flops_per_s=989.4e12, peak_source="datasheet of H200", gemm_s=0.006),
)  # fmt: skip
"""A GPU with nothing to complain of."""


def changed(subject=None, work=None, traced=None, compilation=None, **changes):
    parts = {"subject": subject, "work": work, "traced": traced, "compilation": compilation}
    for name, part in parts.items():
        if part is not None:
            changes[name] = replace(getattr(BUSY, name), **part)
    return replace(BUSY, **changes)


EAGER = changed({"compile_mode": None, "execution": "packed-eager"}, traced={"region_calls": 0})
BROKEN = changed(
    traced={"region_calls": 6},
    compilation={"graph_breaks": ("print() called", "print() called", "Tensor.item()")},
)  # fmt: skip
WAITING = changed(traced={"busy_s": 0.006})
UNREAD = changed(traced={"busy_s": 0.003}, stages={**BUSY.stages, "tokenize": 0.009, "forward": 0.003})
REPLAYED = changed({"compile_mode": "reduce-overhead"}, traced={"cudagraph_launches": 2, "busy_s": 0.006})
SKIPPED = changed({"compile_mode": "reduce-overhead"}, compilation={"cudagraph_skips": 1})
FALLEN = changed(traced={"region_calls": 0}, compilation={"eager_fallbacks": ("f has used up its limit",)})
FLOAT32 = changed({"dtype": "float32"})
EMULATED = changed({"fastest_dtype": "float32"})
PADDED = changed({"layout": "bucketed"}, work={"all_tokens": 14_000})
HALF_EMPTY = changed(work={"all_tokens": 14_000})
CUT = changed(work={"truncated_pairs": 12})
NOISY = changed(seconds=(0.010, 0.012, 0.010))
ON_CPU = changed(
    {"device": "cpu", "compile_mode": "reduce-overhead"}, traced={"kernels": {"cpp_fused": (9, 0.01)}}
)
ATTENDING = changed(traced={"kernels": {"flash_fwd_kernel": (12, 0.006), "nvjet": (48, 0.004)}})
COPYING = changed(
    {"compile_mode": None}, traced={"kernels": {"memcpy HtoD": (9, 0.002), "nvjet": (48, 0.008)}}
)
UNNAMED = changed({"device": "cpu"}, traced={"kernels": {"aten::mm": (9, 0.001)}})

SAID = [
    (BUSY, "1 compiled region: the whole forward pass is one graph", None),
    (BUSY, "A kernel ran 95% of the time, 108 kernels of 88 microseconds on average: the device", None),
    (BUSY, "products alone would need 60% of the time: nothing in this dtype can become more than 1.7", None),
    (BUSY, "MFU is 30% of the device's peak", None),
    (EAGER, "Nothing is compiled: PyTorch starts 54 kernels a batch", "--execution packed"),
    (BROKEN, "3 compiled regions: Python ran between them in every forward pass, because of print() called "
     "(2 times); Tensor.item()", "fullgraph=True"),
    (FALLEN, "the forward pass ran eagerly (f has used up its limit)", "warm up the batch size"),
    (changed(compilation={"graphs": 4}), "4 graphs are kept for it", None),
    (WAITING, "and none the other 40%", "the device waits for the host 40% of the time: try --execution "
     "packed-cudagraphs"),
    (UNREAD, "and none the other 70%", "reading texts took 90%"),
    (REPLAYED, "1 CUDA graph replay(s) a batch", None),
    (REPLAYED, "and none the other 40%", "40% of the time even so"),
    (SKIPPED, "No CUDA graph was replayed, though 'reduce-overhead' records them; 1 region(s)", "perf_hints"),
    (ON_CPU, "which cpu lacks", None),
    (FLOAT32, "float32 matrix products need 60%", "--dtype bfloat16"),
    (EMULATED, "no instructions for bfloat16", "--dtype float32"),
    (PADDED, "28.6% of the tokens that the device processed were padding", "--execution packed"),
    (HALF_EMPTY, "28.6% of the tokens", "2 batch(es) held 10000 tokens"),
    (CUT, "12 of 100 pairs were cut at 512 tokens", None),
    (NOISY, "differ by 12%", "--repeats"),
    (ATTENDING, "60% of the kernels' time is attention", "here 100"),
    (COPYING, "20% of the kernels' time is copies", "a compiled execution"),
    (UNNAMED, "The compiled kernels have no names", "xenc profile"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "says", "hint"), SAID, ids=[says[:40] for _, says, _ in SAID])
def test_what_the_numbers_say_and_what_to_try(profile, says, hint):
    (finding,) = [finding for finding in findings(profile) if says in finding.says]
    assert (finding.hint is None) == (hint is None)
    assert hint is None or hint in finding.hint


def test_a_profile_with_nothing_to_complain_of_gives_no_advice():
    assert [finding for finding in findings(BUSY) if finding.hint] == []
    assert len(findings(BUSY)) == 3


@pytest.mark.parametrize("profile", [profile for profile, _, _ in SAID if profile is not UNNAMED])
def test_every_hint_stands_by_a_measured_number(profile):
    for finding in findings(profile):
        assert finding.hint is None or re.search(r"\d", f"{finding.says} {finding.hint}"), finding


def test_the_same_numbers_say_the_same():
    assert findings(BROKEN) == findings(replace(BROKEN))


def test_a_gpus_kernels_are_compared_with_passes_that_nothing_burdened_and_a_cpus_with_their_own():
    assert BUSY.busy_share == pytest.approx(0.95)
    on_cpu = changed({"device": "cpu"}, traced={"kernels": {"graph_0_cpp_fused_add_1": (9, 0.01)}})
    assert on_cpu.busy_share == pytest.approx(0.475)
    assert changed(traced={"busy_s": 0.011}).busy_share == 1.0
    assert UNNAMED.busy_share is None


def test_tokens_that_are_shared_are_no_waste():
    work = changed(work={"tokens": 10_000, "shared_tokens": 4_000, "all_tokens": 7_500}).work
    assert work.waste == pytest.approx(0.2)


def test_shares_of_the_limit_are_of_the_median_pass():
    profile = replace(BUSY, seconds=(0.5, 0.012, 0.010))
    assert profile.mfu == pytest.approx(3e12 / (0.012 * 989.4e12))
    assert profile.gemm_share == pytest.approx(0.5)
    assert replace(BUSY, seconds=(0.01,)).spread == 0.0


NAMES = {
    MATRIX_PRODUCTS: [
        "aten::addmm", "aten::mm", "aten::bmm", "aten::linear", "mkldnn::_linear_pointwise", "aten::_int_mm",
        "aten::_scaled_mm", "mkl::_mkl_linear", "nvjet_tst_128x64_64x8_1x2_h_bz_TNT",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>",
        "triton_tem_fused_addmm_gelu_3", "graph_2_cpp_packed_gemm_4",
        "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128>",
        "ampere_sgemm_32x128_tn",
    ],
    ATTENTION: [
        "aten::_scaled_dot_product_flash_attention_for_cpu", "xenc::packed_attention",
        "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 64>>",
        "fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "triton_tem_fused_flex_attention_0",
    ],
    ELEMENTWISE: [
        "aten::native_layer_norm", "aten::_softmax", "aten::gelu", "aten::add", "aten::mul_", "aten::tanh",
        "aten::sum", "aten::where", "aten::isnan", "aten::segment_reduce",
        "triton_red_fused_native_layer_norm_0",
        "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>",
        "graph_0_cpp_fused_addmm_gelu_view_2", "triton_poi_fused__scaled_dot_product_flash_attention_copy_1",
    ],
    COPIES: [
        "aten::copy_", "aten::clone", "aten::cat", "aten::_to_copy", "aten::fill_", "aten::zeros",
        "aten::embedding", "aten::index", "memcpy HtoD", "memcpy DtoD", "memset",
        "aten::index_select", "aten::gather",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>",
        "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<long>>",
        "void at::native::(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16, long>",
        "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float>",
    ],
    OTHER: ["aten::bernoulli_", "ncclDevKernel_Broadcast", "a kernel from elsewhere"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for kind, names in NAMES.items() for name in names],
    ids=lambda text: text[:50],
)
def test_a_kernels_class_follows_from_its_name(name, kind):
    assert class_of(name) == kind


def test_classes_lose_no_launch_and_no_second():
    kernels = {
        name: (index + 1, 0.5) for index, name in enumerate(name for n in NAMES.values() for name in n)
    }
    classes = by_class(kernels)
    assert list(classes) == list(CLASSES)
    assert sum(count for count, _ in classes.values()) == sum(count for count, _ in kernels.values())
    assert sum(seconds for _, seconds in classes.values()) == 0.5 * len(kernels)


def test_a_table_is_as_wide_in_every_row_with_numbers_on_the_right():
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
