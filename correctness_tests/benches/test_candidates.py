"""Candidate Triton kernels: by Triton's interpreter, as code for Hopper made without a GPU, and on a GPU."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from correctness_tests.kernels.attention_cases import Case

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")

if importlib.util.find_spec("triton") is not None:
    from perf_tests.hopper.candidates import triton_attention as attention
    from perf_tests.hopper.candidates import triton_product as product

    ATTENTION = (*attention.CONFIGS, *attention.SHORT_CONFIGS[:2])
    PRODUCT = product.CONFIGS
else:
    ATTENTION = PRODUCT = ()

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)

EVERYDAY = Case(lengths=(145, 512, 386, 60, 256, 0), heads=(12, 12), size=64, laid_out="joint")

SHORT = Case(lengths=(128, 60, 0, 127, 64, 1, 0), heads=(12, 12), size=64, laid_out="joint")

CASES = (
    EVERYDAY,
    SHORT,
    Case(lengths=(1,), size=64),
    Case(lengths=(60, 64, 1, 128, 65, 0, 0), heads=(4, 2), size=64),
    Case(lengths=(127, 100), size=128, laid_out="joint"),
    Case(lengths=(300, 0, 129), size=32, laid_out="transposed"),
    Case(lengths=(300, 5, 129), size=64, causal=True),
    Case(lengths=(300, 5, 129), size=64, window=64),
    Case(lengths=(300, 5, 129), size=64, window=30, causal=True),
)

SHARED_MEMORY = 227 << 10


def test_the_package_needs_no_triton():
    code = "import sys; sys.modules['triton'] = None; import perf_tests.hopper.candidates"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_triton
def test_answers_are_right_by_the_interpreter():
    """In a process of its own; see interpreted_candidates.py."""
    module = "correctness_tests.benches.interpreted_candidates"
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@contextmanager
def made_for_hopper() -> Iterator[list[Any]]:
    """Launches inside the block compile for sm_90 instead, and run nothing: what they compiled."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    run, made = JITFunction.run, []
    target = GPUTarget("cuda", 90, 32)
    absent = SimpleNamespace(
        get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda _: 0
    )

    def compiled(self: Any, *arguments: Any, **named: Any) -> Any:
        made.append(run(self, *arguments, **named | {"warmup": True}))
        return made[-1]

    with mock.patch.object(driver, "_active", absent), mock.patch.object(JITFunction, "run", compiled):
        for kernel in (attention._attention, product._product):
            kernel.device_caches.clear()
        yield made


def attend(case: Case, config: Any = None) -> None:
    case.attend(*case.parts(), lambda *arguments: attention.varlen_attention(*arguments, config=config))


def multiply(
    rows: int, config: Any, dtype: torch.dtype = torch.bfloat16, activation: str = "gelu_short"
) -> None:
    hidden, weight, bias = (torch.zeros(shape, dtype=dtype) for shape in ((rows, 768), (3072, 768), (3072,)))
    product.product_gelu(hidden, weight, bias, activation, config)


def usage(kernel: Any, folder: Path) -> dict[str, int]:
    """Registers, stack, shared and local memory, by CUDA's tools, which come with Triton."""
    import triton

    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run([tool, "-res-usage", cubin], check=True, capture_output=True, text=True).stdout
    return {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}


def assert_good_code(kernel: Any, folder: Path) -> None:
    """By the tensor cores' asynchronous products, with nothing spilled."""
    assert "wgmma.mma_async" in kernel.asm["ptx"]
    used = usage(kernel, folder)
    assert used["STACK"] == used["LOCAL"] == 0, used
    assert kernel.metadata.shared <= SHARED_MEMORY


@needs_triton
@pytest.mark.parametrize("config", [None, *ATTENTION[:1]], ids=str)
def test_attention_becomes_good_code_for_hopper(config, tmp_path):
    with made_for_hopper() as made:
        attend(
            Case(lengths=(512, 100), size=64, heads=(12, 12), laid_out="joint", dtype=torch.bfloat16), config
        )
    assert_good_code(made[0], tmp_path)


@needs_triton
@pytest.mark.parametrize("config", [*PRODUCT[:1], *PRODUCT[-1:]], ids=str)
def test_the_product_becomes_good_code_for_hopper(config, tmp_path):
    with made_for_hopper() as made:
        multiply(1024, config)
    assert_good_code(made[0], tmp_path)


@needs_triton
def test_batches_of_other_sizes_need_no_other_code():
    with made_for_hopper() as made:
        for lengths in ((512, 100), (500, 1, 9, 0), (300, *[20] * 20), (511,)):
            attend(Case(lengths=lengths, size=64, heads=(2, 2), laid_out="joint", dtype=torch.bfloat16))
        for rows in (1024, 1088, 2048):
            multiply(rows, PRODUCT[0])
    assert len({id(kernel) for kernel in made}) == 2


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize(
    ("case", "config"),
    [
        *((case, None) for case in CASES),
        *((EVERYDAY, config) for config in ATTENTION),
        *((SHORT, config) for config in ATTENTION[-2:]),
    ],
    ids=str,
)
@DTYPES
def test_attention_is_right_on_a_gpu(case, config, dtype):
    case = replace(case, dtype=dtype)
    case.assert_right(lambda *arguments: attention.varlen_attention(*arguments, config=config), device="cuda")


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("longest", [64, 128, 256, 512])
def test_no_bit_depends_on_the_longest_document_on_a_gpu(longest):
    case = Case(lengths=(60, 64, 1, 33), size=64, dtype=torch.bfloat16)
    query, key, value = (part.cuda() for part in case.parts())
    bounds = torch.tensor(case.cu_seqlens(), dtype=torch.int32, device="cuda")
    one, other = (
        attention.varlen_attention(query, key, value, bounds, bound, case.factor) for bound in (64, longest)
    )
    assert torch.equal(one, other)


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "config"),
    [
        (1024, 384, 128, 0), (2112, 4096, 1024, 0), (16_384, 768, 3072, 0),
        *((1088, 768, 3072, place) for place in range(len(PRODUCT))),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("activation", "dtype"),
    [
        *((activation, torch.bfloat16) for activation in ("none", "gelu", "gelu_short")),
        ("gelu_short", torch.float16),
    ],
    ids=str,
)
def test_the_product_is_right_on_a_gpu(rows, inputs, outputs, activation, config, dtype):
    generator = torch.Generator("cuda").manual_seed(rows)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, device="cuda")
        for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    hidden, weight, bias = hidden.to(dtype), (weight * 2 * inputs**-0.5).to(dtype), bias.to(dtype)
    exact = hidden.float() @ weight.float().T + bias.float()
    if activation != "none":
        exact = torch.nn.functional.gelu(exact)
    out = product.product_gelu(hidden, weight, bias, activation, PRODUCT[config])
    torch.testing.assert_close(out.float(), exact, rtol=torch.finfo(dtype).eps, atol=1e-4)
