"""Attention with a bias in Triton: interpreted, as code made without a GPU, on a GPU, and when it runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from correctness_tests.kernels.attention_cases import Case
from correctness_tests.kernels.compiled_triton import SHARED_MEMORY, made_for, needs_triton, usage
from correctness_tests.kernels.test_biased_attention import Biased, reaching
from xenc.kernels import biased_attention as operators
from xenc.kernels.biased_attention import biased_attention, biased_by_sdpa, why_not_biased

if importlib.util.find_spec("triton") is not None:
    from xenc.kernels import triton_bias as rooms

CUDA = torch.device("cuda", 0)

DEBERTA, MPNET = ("keys", "queries"), ("numbers",)

EVERYDAY = Biased(
    case=Case(lengths=(145, 512, 386, 60, 256, 0), heads=(12, 12), size=64, dtype=torch.bfloat16),
    buckets=512,
    terms=DEBERTA,
)


def with_case(biased: Biased, **others: Any) -> Biased:
    return replace(biased, case=replace(biased.case, **others))


CASES = (
    EVERYDAY,
    replace(EVERYDAY, terms=MPNET, buckets=32),
    replace(EVERYDAY, terms=("numbers", *DEBERTA)),
    with_case(EVERYDAY, dtype=torch.float16, laid_out="joint"),
    with_case(replace(EVERYDAY, terms=("keys",)), lengths=(127, 100), size=32),
    with_case(replace(EVERYDAY, terms=("queries",)), lengths=(300, 0, 129), laid_out="transposed"),
    with_case(EVERYDAY, lengths=(127, 65, 64, 63), heads=(3, 3), size=128),
    with_case(EVERYDAY, lengths=(1,)),
)


@needs_triton
def test_answers_are_right_by_the_interpreter():
    """In a process of its own; see interpreted_bias.py."""
    module = "correctness_tests.kernels.interpreted_bias"
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def made(capability: int, *cases: Biased) -> list[Any]:
    """The code for each, as `usual_biased_config` says."""

    def by_triton(query, key, value, bounds, _, *how):
        config = rooms.usual_biased_config(query.shape[-1], divmod(capability, 10))
        return rooms.biased_varlen_attention(query, key, value, bounds, *how, config=config)

    with made_for(rooms.biased_attention_kernel, capability) as kernels:
        for case in cases:
            case.attend(attention=by_triton)
    return kernels


@needs_triton
@pytest.mark.parametrize("terms", [DEBERTA, MPNET], ids=["deberta", "mpnet"])
@pytest.mark.parametrize(
    ("size", "capability"), [(32, 90), (64, 90), (128, 90), (64, 80), (128, 80), (64, 89), (128, 89)]
)
def test_it_becomes_good_code(size, capability, terms, tmp_path):
    """On tensor cores (on Hopper by its asynchronous products), with nothing spilled."""
    [kernel] = made(capability, with_case(replace(EVERYDAY, terms=terms), size=size, lengths=(70,)))
    asynchronous = capability == 90 and size <= 64
    assert ("wgmma.mma_async" if asynchronous else "mma.sync") in kernel.asm["ptx"]
    used = usage(kernel, tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0, used
    assert kernel.metadata.shared <= SHARED_MEMORY[capability]


@needs_triton
def test_batches_and_texts_of_other_sizes_need_no_other_code():
    two = with_case(EVERYDAY, heads=(2, 2))
    kernels = made(90, *(with_case(two, lengths=each) for each in ((512, 100), (500, 1, 9, 0), (16,), (5,))))
    assert len({id(kernel) for kernel in kernels}) == 1


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (biased_by_sdpa, None),
        (lambda *given: biased_by_sdpa(*given) + 0.1, "its answers to a small batch differ by 0.1"),
        (lambda *given: biased_by_sdpa(*given) * torch.nan, "its answers to a small batch differ by inf"),
        (
            lambda *given: biased_by_sdpa(*given[:6], None if given[6] is None else given[6] * 0, *given[7:]),
            "its answers to a small batch differ by ",
        ),
        (
            lambda *given: biased_by_sdpa(*given[:8], given[8] if given[7] is None else given[7]),
            "its answers to a small batch differ by ",
        ),
        (lambda *given: None, "it fails: 'NoneType'"),
    ],
    ids=["right", "off", "not a number", "no numbers", "keys for queries", "raises"],
)
def test_a_kernel_that_answers_a_small_batch_otherwise_is_not_used(answer, found, monkeypatch):
    module = SimpleNamespace(biased_varlen_attention=answer)
    monkeypatch.setitem(sys.modules, "xenc.kernels.triton_bias", module)
    said = operators.disagreement(torch.device("cpu"), torch.bfloat16, 64)
    assert said == found if found is None else said.startswith(found)


def test_it_runs_where_triton_does_and_it_agrees(monkeypatch):
    why_not = why_not_biased.__wrapped__
    monkeypatch.setattr(operators, "why_not_triton", lambda *_: None)
    monkeypatch.setattr(operators, "disagreement", lambda *_: "it is wrong")
    assert why_not(CUDA, torch.bfloat16, 64) == "it is wrong"
    monkeypatch.setattr(operators, "disagreement", lambda *_: None)
    assert why_not(CUDA, torch.bfloat16, 64) is None
    monkeypatch.setattr(operators, "why_not_triton", lambda *_: "no CUDA")
    assert why_not(CUDA, torch.bfloat16, 64) == "no CUDA"


def test_what_has_no_kernel_is_refused_by_name():
    arguments = with_case(EVERYDAY, lengths=(9,), size=80).attend(attention=lambda *arguments: arguments)
    with pytest.raises(NotImplementedError, match=r"no CUDA kernel for torch.bfloat16 .* heads of 80: its"):
        operators._on_cuda(*arguments)


def test_documents_longer_than_the_buckets_reach_are_refused(monkeypatch):
    """And never read beyond them."""
    monkeypatch.setattr(operators, "why_not_biased", lambda *_: None)
    arguments = list(with_case(EVERYDAY, lengths=(9,)).attend(attention=lambda *arguments: arguments))
    arguments[6] = arguments[6][4:-4]
    with pytest.raises(ValueError, match="a document of 9 tokens: buckets reach to 6 to either side"):
        operators._on_cuda(*arguments)


def on_a_gpu(*arguments: Any) -> torch.Tensor:
    moved = [each.cuda() if isinstance(each, torch.Tensor) else each for each in arguments]
    return biased_attention(*moved).cpu()


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_what_answers_on_a_gpu_and_is_right(case):
    assert why_not_biased(CUDA, case.case.dtype, case.case.size) is None
    for _ in range(2):  # the second launch finds its code
        case.assert_right(on_a_gpu)


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("terms", [DEBERTA, MPNET], ids=["deberta", "mpnet"])
def test_no_bit_depends_on_neighbours_on_a_gpu(terms):
    case, attend = (
        with_case(replace(EVERYDAY, terms=terms), lengths=(60, 145, 1, 386)),
        reaching(512, on_a_gpu),
    )
    assert torch.equal(case.attend_among([7, 512, 64], [300], attend), case.attend(attention=attend))


@pytest.mark.gpu
@needs_triton
def test_a_cuda_graph_holds_it():
    """Whose next replay answers for other documents."""
    case = with_case(EVERYDAY, lengths=(60, 145, 3))
    other = with_case(EVERYDAY, lengths=(200, 3, 5), seed=1)
    take = reaching(200, lambda *arguments: arguments)
    held, given = ([*each.attend(attention=take)] for each in (case, other))
    held = [each.cuda() if isinstance(each, torch.Tensor) else each for each in held]
    biased_attention(*held)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = biased_attention(*held)
    for target, source in zip(held, given, strict=True):
        if isinstance(target, torch.Tensor):
            target.copy_(source)
    graph.replay()
    other.assert_right(lambda *_: out.cpu())
