"""Packed attention in Triton: by its interpreter, as code made without a GPU, on a GPU, and when it runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from correctness_tests.kernels.attention_cases import Case
from correctness_tests.kernels.compiled_triton import SHARED_MEMORY, made_for, needs_triton, usage
from xenc.kernels import packed_attention as packed
from xenc.kernels.packed_attention import packed_attention, why_not_triton

if importlib.util.find_spec("triton") is not None:
    from xenc.kernels import triton_attention as rooms

CUDA = torch.device("cuda", 0)

EVERYDAY = Case(
    lengths=(145, 512, 386, 60, 256, 0), heads=(12, 12), size=64, laid_out="joint", dtype=torch.bfloat16
)

CASES = (
    EVERYDAY,
    replace(EVERYDAY, dtype=torch.float16),
    Case(lengths=(1,), size=64, dtype=torch.bfloat16),
    Case(lengths=(60, 64, 1, 128, 65, 0, 0), heads=(4, 2), size=64, dtype=torch.bfloat16),
    Case(lengths=(127, 100), size=128, laid_out="joint", dtype=torch.float16),
    Case(lengths=(512, 100), heads=(16, 8), size=128, causal=True, dtype=torch.bfloat16),
    Case(lengths=(300, 0, 129), size=32, laid_out="transposed", dtype=torch.bfloat16),
    Case(lengths=(300, 5, 129), size=64, causal=True, dtype=torch.float16),
    Case(lengths=(300, 5, 129), size=64, window=64, dtype=torch.bfloat16),
    Case(lengths=(300, 5, 129), size=64, window=30, causal=True, dtype=torch.bfloat16),
    Case(lengths=(1,) * 600, size=32, dtype=torch.bfloat16),
)


def by_triton(query, key, value, cu_seqlens, _, *how):
    """In place of the operator, which is told the longest document too."""
    return rooms.varlen_attention(query, key, value, cu_seqlens, *how)


@needs_triton
def test_answers_are_right_by_the_interpreter():
    """In a process of its own; see interpreted_attention.py."""
    module = "correctness_tests.kernels.interpreted_attention"
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_triton
@pytest.mark.parametrize(
    ("size", "capability"), [(32, 90), (64, 90), (128, 90), (64, 80), (128, 80), (128, 89)]
)
def test_it_becomes_good_code(size, capability, tmp_path):
    """On tensor cores (on Hopper by its asynchronous products), with nothing spilled."""
    with made_for(rooms.packed_attention_kernel, capability) as made:
        case = replace(EVERYDAY, size=size)
        case.attend(*case.parts(), by_triton)
    [kernel] = made
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in kernel.asm["ptx"]
    used = usage(kernel, tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0, used
    assert kernel.metadata.shared <= SHARED_MEMORY[capability]


@needs_triton
def test_batches_of_other_sizes_need_no_other_code():
    with made_for(rooms.packed_attention_kernel, 90) as made:
        for lengths in ((512, 100), (500, 1, 9, 0), (300, *[20] * 20), (511,), (16,)):
            case = replace(EVERYDAY, lengths=lengths, heads=(2, 2))
            case.attend(*case.parts(), by_triton)
    assert len({id(kernel) for kernel in made}) == 1


@needs_triton
def test_code_is_found_again_for_what_it_was_made_for_alone(monkeypatch):
    """Triton makes other code where strides or addresses are less even, so by these it is looked up too."""
    asked: list[str] = []
    found = mock.MagicMock()
    found.__getitem__.return_value = lambda *_: asked.append("found")
    kernel = mock.MagicMock()
    kernel.__getitem__.return_value = lambda *_, **how: asked.append("made") or found
    monkeypatch.setattr(rooms, "packed_attention_kernel", kernel)
    monkeypatch.setattr(rooms, "_compiled", {})

    def kinds(*cases: Case) -> list[str]:
        asked.clear()
        for case in cases:
            case.attend(*case.parts(), by_triton)
        return [*asked]

    usual = replace(EVERYDAY, heads=(2, 2))
    assert kinds(usual, replace(usual, lengths=(5, 9, 0)), usual) == ["made", "found", "found"]
    others = [
        replace(usual, heads=(4, 2)), replace(usual, size=32), replace(usual, causal=True),
        replace(usual, window=3), replace(usual, dtype=torch.float16), replace(usual, laid_out="apart"),
    ]  # fmt: skip
    assert kinds(*others) == ["made"] * len(others)
    assert kinds(replace(usual, window=3), replace(usual, window=4)) == ["found", "found"]
    query, key, value = usual.parts()
    shifted = torch.empty(query.numel() + 1, dtype=query.dtype)[1:].view(query.shape)
    asked.clear()
    for one in (query.contiguous(), shifted):
        usual.attend(one, key, value, by_triton)
    assert asked == ["made", "made"]


def test_it_runs_for_short_floats_and_common_heads_where_triton_does(monkeypatch):
    why_not = why_not_triton.__wrapped__
    found = SimpleNamespace(driver=SimpleNamespace(active=SimpleNamespace(get_current_target=lambda: None)))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(packed, "find_spec", lambda name: name)
    monkeypatch.setattr(packed, "disagreement", lambda *of: None)
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(runtime=found))
    monkeypatch.setitem(sys.modules, "triton.runtime", found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert [why_not(CUDA, torch.bfloat16, size) for size in (32, 64, 128)] == [None] * 3
    assert why_not(CUDA, torch.float16, 64) is None
    assert "torch.float32" in why_not(CUDA, torch.float32, 64)
    assert "not 80" in why_not(CUDA, torch.bfloat16, 80)
    assert why_not(torch.device("cpu"), torch.bfloat16, 64) == "no CUDA"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert why_not(CUDA, torch.bfloat16, 64) == "Tesla T4 is older than compute capability 8.0"
    found.driver.active = None
    assert "Triton does not work: 'NoneType'" in why_not(CUDA, torch.bfloat16, 64)
    monkeypatch.setattr(packed, "find_spec", lambda name: None)
    assert why_not(CUDA, torch.bfloat16, 64) == "Triton is not installed"


def right(query, key, value, bounds, scale, causal, window):
    return packed.by_sdpa(query, key, value, bounds, scale, causal, window)


def raising(*given, **how):
    raise RuntimeError("no resources\nand more")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (right, None),
        (lambda *given, **how: right(*given, **how) + 0.1, "its answers to a small batch differ by 0.1"),
        (
            lambda *given, **how: right(*given, **how) * torch.nan,
            "its answers to a small batch differ by inf",
        ),
        (raising, "it fails: no resources"),
    ],
    ids=["right", "off", "not a number", "raises"],
)
def test_a_kernel_that_answers_a_small_batch_otherwise_than_pytorchs_is_not_used(answer, found, monkeypatch):
    """On a device that nobody measured, or with another Triton."""
    module = SimpleNamespace(varlen_attention=answer)
    monkeypatch.setitem(sys.modules, "xenc.kernels.triton_attention", module)
    theirs = lambda query, key, value, bounds, longest, scale: right(  # noqa: E731
        query, key, value, bounds[0], scale, False, packed.NO_WINDOW
    )
    monkeypatch.setattr(packed, "by_pytorch", theirs)
    said = packed.disagreement(torch.device("cpu"), torch.bfloat16, 64)
    assert said == found if found is None else said.startswith(found)


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_what_answers_on_a_gpu_and_is_right(case, monkeypatch):
    assert why_not_triton(CUDA, case.dtype, case.size) is None
    monkeypatch.setattr(packed, "by_pytorch", None)
    for _ in range(2):  # the second launch finds its code
        case.assert_right(device="cuda")


@pytest.mark.gpu
@needs_triton
def test_no_bit_depends_on_neighbours_on_a_gpu():
    case = replace(EVERYDAY, lengths=(60, 145, 1, 386))

    def attend(query, key, value, bounds, *how):
        return packed_attention(query.cuda(), key.cuda(), value.cuda(), bounds.cuda(), *how).cpu()

    alone = case.attend(*case.parts(), attend)
    assert torch.equal(case.attend_among([7, 512, 64], [300], attend), alone)


@pytest.mark.gpu
@needs_triton
def test_a_cuda_graph_holds_it():
    """Whose next replay answers for other documents."""
    case, other = replace(EVERYDAY, lengths=(60, 145, 3)), replace(EVERYDAY, lengths=(200, 3, 5), seed=1)
    held = [part.cuda() for part in case.parts()]
    bounds = torch.tensor(case.cu_seqlens(), dtype=torch.int32, device="cuda")
    arguments = (*held, bounds, 512, case.factor, False, packed.NO_WINDOW)
    packed_attention(*arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = packed_attention(*arguments)
    for target, source in zip(held, other.parts(), strict=True):
        target.copy_(source)
    bounds.copy_(torch.tensor(other.cu_seqlens(), dtype=torch.int32))
    graph.replay()
    other.assert_right(lambda *_: out, device="cuda")
