"""Attention of one query of each document: by the C++ kernel and by PyTorch, against float64 written out."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from correctness_tests import fake_cuda, strategies
from correctness_tests.kernels.attention_cases import IN_ALL_DTYPES, LENGTHS, STEPS, Case, not_numbers
from xenc.kernels import pooled_attention as rooms
from xenc.kernels.library import DTYPES
from xenc.kernels.pooled_attention import pooled_attention

cases = st.builds(
    Case,
    lengths=LENGTHS,
    heads=st.sampled_from([(1, 1), (3, 3), (4, 2), (6, 2), (4, 1)]),
    size=st.sampled_from((1, 8, 15, 16, 24, 32, 33, 64, 80, 128)),
    laid_out=st.sampled_from(["apart", "joint", "transposed"]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)  # fmt: skip


def by_sdpa(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, _: int, scale: float) -> Tensor:
    """What runs on processors without the C++ kernel."""
    return rooms.pooled_by_sdpa(query, key, value, cu_seqlens, scale)


WAYS = pytest.mark.parametrize("attend", [pooled_attention, by_sdpa], ids=["operator", "sdpa"])


def arguments_of(case: Case) -> tuple:
    """The queries of the case's first tokens stand for one query of each document."""
    query, key, value = case.parts()
    queries = torch.cat([query, query])[: len(case.lengths)]
    if len(queries) < len(case.lengths):  # fewer tokens than documents
        queries = queries[:1].expand(len(case.lengths), -1, -1)
    cu_seqlens = torch.tensor(case.cu_seqlens(), dtype=torch.int32)
    return queries, key, value, cu_seqlens, max(1, *case.lengths), case.factor


def in_float64(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One document and one head at a time; 0 for an empty document."""
    query, key, value = (part.double() for part in (query, key, value))
    out, share = torch.zeros(query.shape, dtype=torch.float64), case.heads[0] // case.heads[1]
    for slot, (start, end) in enumerate(pairwise(case.cu_seqlens())):
        for head in range(case.heads[0]) if start < end else ():
            weights = (key[start:end, head // share] @ query[slot, head] * case.factor).softmax(dim=0)
            out[slot, head] = weights @ value[start:end, head // share]
    return out


def assert_right(case: Case, attend=pooled_attention) -> None:
    """Within so many rounding steps of the largest value."""
    query, key, value, *rest = arguments_of(case)
    out = attend(query, key, value, *rest)
    assert (out.shape, out.dtype, out.is_contiguous()) == (query.shape, case.dtype, True)
    error = (out.double() - in_float64(case, query, key, value)).abs().max().item()
    assert error <= torch.finfo(case.dtype).eps * STEPS[case.dtype] * value.abs().max().item()


@WAYS
@given(case=cases)
@example(case=Case(lengths=(0, 5, 0, 5, 0), heads=(4, 2)))
@example(case=Case(lengths=(9, 9, 4, 9)))
def test_each_query_sees_its_own_document_and_all_of_it(attend, case):
    assert_right(case, attend)


@WAYS
@IN_ALL_DTYPES
@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 2500])
def test_documents_at_the_edges_of_a_block_are_right(attend, dtype, tokens):
    assert_right(Case(lengths=(3, tokens, 2), heads=(2, 1), size=24, dtype=dtype), attend)


@WAYS
def test_float64_is_exact(attend):
    case = Case(lengths=(5, 0, 20), heads=(4, 2), dtype=torch.float64)
    query, key, value, *rest = arguments_of(case)
    exact = in_float64(case, query, key, value)
    torch.testing.assert_close(attend(query, key, value, *rest), exact, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("kernels")
@IN_ALL_DTYPES
def test_the_kernel_is_what_answers(dtype, monkeypatch):
    monkeypatch.setattr(rooms, "pooled_by_sdpa", None)
    assert_right(Case(lengths=(5, 7), dtype=dtype))


@WAYS
@strategies.FEW
@given(
    case=cases,
    before=st.lists(st.integers(0, 300), max_size=3),
    after=st.lists(st.integers(0, 300), max_size=3),
)
@example(case=Case(lengths=(1025,), dtype=torch.bfloat16), before=[1], after=[1024])
@example(case=Case(lengths=(12,), heads=(1, 1), size=16), before=[12], after=[])
@example(case=Case(lengths=(11,), heads=(1, 1), size=1), before=[1], after=[])
def test_no_bit_of_a_document_depends_on_its_company(attend, case, before, after):
    """Not even on neighbours that are not numbers."""
    query, key, value, cu_seqlens, longest, scale = arguments_of(case)
    alone = attend(query, key, value, cu_seqlens, longest, scale)
    parts = [
        torch.cat([not_numbers(part, sum(before)), part, not_numbers(part, sum(after))])
        for part in (key, value)
    ]
    queries = torch.cat([not_numbers(query, len(before)), query, not_numbers(query, len(after))])
    lengths = [*before, *case.lengths, *after]
    cu_seqlens = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    found = attend(queries, *parts, cu_seqlens, max(lengths), scale)
    assert torch.equal(found[len(before) :][: len(alone)], alone)


@IN_ALL_DTYPES
def test_no_bit_depends_on_the_number_of_threads(dtype, threads):
    arguments = arguments_of(Case(lengths=(1100, 7, 300, 64, 64, 1), heads=(4, 2), dtype=dtype))
    answers = []
    for count in (1, 2, 3):
        threads(count)
        answers.append(pooled_attention(*arguments))
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_it_is_an_operator_as_pytorch_wants_them():
    torch.library.opcheck(pooled_attention, arguments_of(Case(lengths=(9, 4, 0), heads=(4, 2))))


@IN_ALL_DTYPES
@pytest.mark.parametrize("heads", [(12, 12), (16, 8)], ids=str)
def test_the_cuda_kernel_answers_as_the_operator_says(dtype, heads):
    """By PyTorch's own description of its kernels, so without a GPU."""
    with fake_cuda.no_device(scalars=False):
        query, key = (torch.empty(64, count, 32, dtype=dtype, device=fake_cuda.DEVICE) for count in heads)
        cu_seqlens = torch.empty(9, dtype=torch.int32, device=fake_cuda.DEVICE)
        arguments = (query[:8], key, key.clone(), cu_seqlens, 32, 0.5)
        answered, told = rooms._on_cuda(*arguments), pooled_attention(*arguments)
        for is_so in (answered, told):
            assert (is_so.shape, is_so.stride(), is_so.dtype) == (
                (8, heads[0], 32),
                (heads[0] * 32, 32, 1),
                dtype,
            )
            assert is_so.device == fake_cuda.DEVICE


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("lengths", [(1,), (9, 9, 4), (512, 37, 1, 200, 0, 0)], ids=str)
def test_each_query_sees_its_own_document_on_a_gpu(dtype, lengths):
    case = Case(lengths=lengths, heads=(4, 2), dtype=dtype)
    query, key, value, cu_seqlens, longest, scale = arguments_of(case)
    on_gpu = (part.cuda() for part in (query, key, value, cu_seqlens))
    out = pooled_attention(*on_gpu, longest, scale).cpu().double()
    documents = torch.tensor(lengths) > 0
    error = (out - in_float64(case, query, key, value))[documents].abs().max().item()
    # tensor cores make one float32 product of three shorter ones
    assert error <= torch.finfo(dtype).eps * 32 * value.abs().max().item()
