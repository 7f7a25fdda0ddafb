"""Kernels predicted without a GPU; what needs a CUDA build of PyTorch is skipped without one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch

from perf_tests import absent_gpu, predicted_kernels
from perf_tests.launches import BYTES_PER_S, EIGHT_BITS_PER_S, FLOPS_PER_S, Launch
from perf_tests.predicted_kernels import Prediction, predict

TOKENS, PAIR_TOKENS, WIDTH = 1024, 128, 768

can_generate = pytest.mark.skipif(
    torch.version.cuda is None or importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="needs a CUDA build of PyTorch, Triton and no GPU",
)


@pytest.mark.parametrize(
    ("cuda", "said"),
    [(None, r"torch .* is no CUDA build: install one"), ("13.0", "Triton is absent: pip install triton")],
)
def test_without_a_cuda_build_or_triton_it_says_what_to_install(cuda, said, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(absent_gpu.NoCompilerError, match=said):
        predict("packed")


def test_a_kernel_takes_as_long_as_its_bytes_or_its_products_whichever_is_longer():
    assert Launch("copy", int(BYTES_PER_S), FLOPS_PER_S / 2, FLOPS_PER_S).seconds == 1
    assert Launch("product", int(BYTES_PER_S), FLOPS_PER_S * 3, FLOPS_PER_S).seconds == 3
    assert Launch("eight bits", 0, EIGHT_BITS_PER_S, EIGHT_BITS_PER_S).seconds == 1


def test_the_table_counts_launches_and_puts_the_longest_first():
    short, long = (Launch(name, size, 0.0, FLOPS_PER_S) for name, size in (("short", 1000), ("long", 10**9)))
    lines = predicted_kernels.table(Prediction((8, 2), [short, long, short, short], None, "")).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["long", "short"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "3", "4"]


@pytest.fixture(scope="module")
def packed() -> Prediction:
    return predict("packed", layers=2, tokens=TOKENS, pair_tokens=PAIR_TOKENS)


@can_generate
def test_a_packed_layer_is_six_products_one_attention_and_a_gelu(packed):
    names = [launch.name for launch in packed.launches]
    assert sum(name.startswith(f"addmm {TOKENS} x") for name in names) == 6 + 2
    assert sum("packed_attention" in name for name in names) == 1
    assert sum("pooled_attention" in name for name in names) == 1
    gelu = max((launch for launch in packed.launches if "gelu" in launch.name), key=lambda gelu: gelu.bytes)
    assert gelu.bytes == 2 * TOKENS * 4 * WIDTH * 2  # read once and written once, in bfloat16
    assert packed.no_cuda_graph is None


@can_generate
def test_by_cublaslt_query_key_and_value_are_one_product_and_no_gelu_is_left(packed):
    fused = predict("packed", layers=2, tokens=TOKENS, pair_tokens=PAIR_TOKENS, products="cublaslt")
    names = [launch.name for launch in fused.launches]
    slots = fused.shape[1]
    assert names.count(f"addmm {TOKENS} x {WIDTH} x {3 * WIDTH}") == 1
    for rows in (TOKENS, slots):
        assert names.count(f"_addmm_activation {rows} x {WIDTH} x {4 * WIDTH}") == 1
    assert not any("gelu" in name for name in names if name.startswith("triton_"))
    assert len(packed.launches) - len(names) == 2 + 2  # two products and a GELU of each layer
    assert sum(launch.flops for launch in fused.launches) == sum(launch.flops for launch in packed.launches)
    assert fused.no_cuda_graph is None


@can_generate
def test_after_the_last_attention_products_have_a_row_for_each_slot(packed):
    tokens, slots = packed.shape
    assert tokens == TOKENS
    assert TOKENS // PAIR_TOKENS <= slots < 2 * (TOKENS // PAIR_TOKENS)  # some for dummies
    names = [launch.name for launch in packed.launches]
    last = max(place for place, name in enumerate(names) if "pooled_attention" in name)
    assert f"addmm {slots} x {WIDTH} x {4 * WIDTH}" in names[last:]
    assert not [name for name in names[last:] if name.startswith(f"addmm {TOKENS} x")]


@can_generate
def test_its_flops_are_those_that_utilisation_is_measured_by(packed):
    of_tokens = [launch.flops for launch in packed.launches if f" {TOKENS} x" in launch.name]
    products = 2 * TOKENS * (12 + 2) * WIDTH**2  # of the last layer keys and values alone
    assert sum(of_tokens) == products + 4 * TOKENS * PAIR_TOKENS * WIDTH


@can_generate
def test_every_triton_kernel_becomes_a_cubin(packed):
    variants = absent_gpu.compile_kernels(packed.code)
    names = {launch.name for launch in packed.launches if launch.name.startswith("triton_")}
    assert set(variants) == names
    assert all(variants.values())


@can_generate
def test_nothing_is_left_pretended_afterwards(packed):
    assert not torch.cuda.is_available()
    with pytest.raises(RuntimeError, match="NVIDIA"):
        torch.zeros(1, device="cuda")


def test_the_command_prints_what_is_missing_or_the_table():
    arguments = ["--layers", "1", "--tokens", "256", "--pair-tokens", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "perf_tests.predicted_kernels", *arguments], capture_output=True, text=True
    )
    if torch.version.cuda is None:
        assert done.returncode == 1
        assert "is no CUDA build" in done.stderr
    else:
        assert "CUDA graph: Inductor would make one" in done.stdout, done.stderr
