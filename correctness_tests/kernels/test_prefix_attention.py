"""Packed attention after a prefix, against softmax(QK^T)V written out per token."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from correctness_tests import strategies
from xenc.kernels import prefix_attention as attention
from xenc.kernels.packed_attention import NO_WINDOW, packed_attention
from xenc.kernels.prefix_attention import prefixed_attention

SCALE = 0.3


@dataclass(frozen=True)
class Case:
    """Documents of so many tokens after a prefix, in a cache that has room for more."""

    lengths: tuple[int, ...]
    prefix: int
    room: int = 3
    heads: tuple[int, int] = (4, 2)
    seed: int = 0

    def arguments(self, dtype: torch.dtype, device: str = "cpu") -> tuple:
        """What the operator takes; the rest of the cache is not even numbers."""
        generator = torch.Generator().manual_seed(self.seed)
        sizes = (self.heads[0], self.heads[1], self.heads[1])
        parts = [torch.randn(sum(self.lengths), heads, 16, generator=generator) for heads in sizes]
        cache = torch.randn(2, self.prefix + self.room, self.heads[1], 16, generator=generator)
        cache[:, self.prefix :] = torch.nan
        cu_seqlens, prefix_cu_seqlens = (
            torch.tensor(values, dtype=torch.int32, device=device)
            for values in ([0, *accumulate(self.lengths)], [0, self.prefix])
        )
        q, k, v, before_k, before_v = (part.to(device, dtype) for part in (*parts, *cache))
        return q, k, v, cu_seqlens, before_k, before_v, prefix_cu_seqlens, max(1, *self.lengths), SCALE


cases = st.builds(
    Case,
    lengths=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=6)
    .filter(any)
    .map(tuple),
    prefix=st.one_of(st.just(0), st.integers(1, 90)),
    room=st.integers(1, 9),
    heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (6, 2), (4, 1)]),
    seed=st.integers(0, 99),
)

EDGES = (
    Case((1,), 0),
    Case((1,), 1),
    Case((9, 9, 4, 9, 0, 0), 7),
    Case((9, 9, 4, 9, 0, 0), 0),
    Case((40, 3), 200, heads=(4, 1)),
)


def attended(case: Case, query: Tensor, key: Tensor, value: Tensor, before: tuple[Tensor, Tensor]) -> Tensor:
    """In float64, one document and one head at a time, over prefix and document in one softmax."""
    query, key, value = (part.double().cpu() for part in (query, key, value))
    before_key, before_value = (part[: case.prefix].double().cpu() for part in before)
    out, share = torch.empty_like(query), case.heads[0] // case.heads[1]
    for start, end in pairwise([0, *accumulate(case.lengths)]):
        keys, values = torch.cat([before_key, key[start:end]]), torch.cat([before_value, value[start:end]])
        rows = torch.arange(end - start)[:, None] + case.prefix
        unseen = torch.arange(case.prefix + end - start) > rows
        for head in range(case.heads[0]):
            weights = query[start:end, head] @ keys[:, head // share].T * SCALE
            weights = weights.masked_fill(unseen, -torch.inf).softmax(dim=-1)
            out[start:end, head] = weights @ values[:, head // share]
    return out


def assert_close(case: Case, dtype: torch.dtype, device: str = "cpu") -> None:
    """Within a few rounding steps of the largest value: one softmax more than packed attention takes."""
    arguments = case.arguments(dtype, device)
    out = prefixed_attention(*arguments)
    assert (out.shape, out.dtype, out.is_contiguous()) == (arguments[0].shape, dtype, True)
    error = (out.double().cpu() - attended(case, *arguments[:3], arguments[4:6])).abs().max()
    largest = torch.cat([arguments[2], arguments[5][: case.prefix]]).abs().max().item()
    assert error <= 6 * torch.finfo(dtype).eps * largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@strategies.FEW
@given(case=cases)
def test_each_document_attends_to_the_prefix_and_causally_to_itself(dtype, case):
    assert_close(case, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", EDGES, ids=str)
def test_each_document_attends_to_the_prefix_and_causally_to_itself_at_the_edges(dtype, case):
    assert_close(case, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "case", [*EDGES, Case((512, 37, 1, 200, 0), 300), Case((300, 300, 7), 1000, room=1048)], ids=str
)
def test_each_document_attends_to_the_prefix_and_causally_to_itself_on_a_gpu(case):
    assert_close(case, torch.bfloat16, "cuda")
    with pytest.raises(NotImplementedError, match=r"float32 attention after a shared prefix"):
        prefixed_attention(*case.arguments(torch.float32, "cuda"))


def test_what_cuda_answers_is_laid_out_as_the_compiler_is_told():
    """By PyTorch's own description of its kernels, so without a GPU."""
    arguments = Case((9, 4), 7).arguments(torch.bfloat16)
    described = [part.to("meta") if isinstance(part, Tensor) else part for part in arguments]
    told = torch.empty(described[0].shape)
    described[0] = described[0].transpose(0, 1).contiguous().transpose(0, 1)
    out = attention._on_cuda(*described)
    assert (out.shape, out.stride(), out.dtype) == (told.shape, told.stride(), torch.bfloat16)


@pytest.mark.parametrize("case", [EDGES[0], EDGES[3]], ids=str)
def test_after_no_prefix_it_is_packed_attention(case):
    query, key, value, cu_seqlens, *_, longest, scale = case.arguments(torch.float32)
    packed = packed_attention(query, key, value, cu_seqlens, longest, scale, True, NO_WINDOW)
    torch.testing.assert_close(prefixed_attention(*case.arguments(torch.float32)), packed, rtol=0, atol=1e-6)


def test_where_scores_are_far_apart_no_weight_overflows():
    query, key, value, cu_seqlens, before_key, before_value, *rest = Case((9, 4), 7).arguments(torch.float32)
    out = prefixed_attention(query * 1e3, key, value, cu_seqlens, before_key, before_value, *rest)
    exact = attended(Case((9, 4), 7), query * 1e3, key, value, (before_key, before_value))
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("case", EDGES[2:], ids=str)
def test_it_is_an_operator_as_pytorch_wants_them(case):
    query, *others = case.arguments(torch.float32)
    arguments = [part.nan_to_num() if part.is_floating_point() else part for part in others[:6]]
    torch.library.opcheck(prefixed_attention, (query, *arguments, *others[6:]))
