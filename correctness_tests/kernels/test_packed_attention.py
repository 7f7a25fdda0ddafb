"""Packed attention against softmax(QK^T)V written out per document, and against eager attention in models."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from correctness_tests import checkpoints, strategies
from xenc.kernels import packed_attention as attention
from xenc.kernels.packed_attention import NO_WINDOW, PACKED_ATTENTION, packed_attention

SCALE = 0.3


@dataclass(frozen=True)
class Case:
    """Documents of so many tokens, and how to attend within each."""

    lengths: tuple[int, ...]
    heads: tuple[int, int] = (2, 2)
    causal: bool = False
    window: int = NO_WINDOW
    transposed: bool = False
    seed: int = 0

    def arguments(self, dtype: torch.dtype, device: str = "cpu") -> tuple:
        """What the operator takes: queries, keys and values of unit spread, and where documents start."""
        generator = torch.Generator().manual_seed(self.seed)
        parts = [self._part(heads, generator) for heads in (self.heads[0], self.heads[1], self.heads[1])]
        cu_seqlens = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=device)
        longest = max(1, *self.lengths)
        return (
            *(part.to(device, dtype) for part in parts),
            cu_seqlens,
            longest,
            SCALE,
            self.causal,
            self.window,
        )

    def _part(self, heads: int, generator: torch.Generator) -> Tensor:
        tokens = sum(self.lengths)
        if self.transposed:
            return torch.randn(heads, tokens, 16, generator=generator).transpose(0, 1)
        return torch.randn(tokens, heads, 16, generator=generator)


cases = st.builds(
    Case,
    lengths=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=6)
    .filter(any)
    .map(tuple),
    heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (6, 2), (4, 1)]),
    causal=st.booleans(),
    window=st.one_of(st.just(NO_WINDOW), st.integers(0, 4), st.integers(0, 45)),
    transposed=st.booleans(),
    seed=st.integers(0, 99),
)

EDGES = (
    Case((1,)),
    Case((1, 1, 1), window=0),
    Case((9, 9, 4, 9), causal=True),
    Case((9, 9, 4, 0, 0), heads=(4, 2), window=3),
    Case((9, 4), window=8),
    Case((9, 4), window=7, causal=True),
    Case((0, 5, 0, 5, 0), causal=True, transposed=True),
)


def attended(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """In float64, one document and one head at a time."""
    query, key, value = (part.double().cpu() for part in (query, key, value))
    out = torch.empty_like(query)
    share = case.heads[0] // case.heads[1]
    for start, end in pairwise([0, *accumulate(case.lengths)]):
        unseen = ~seen(case, end - start)
        for head in range(case.heads[0]):
            scores = query[start:end, head] @ key[start:end, head // share].T * SCALE
            weights = scores.masked_fill(unseen, -torch.inf).softmax(dim=-1)
            out[start:end, head] = weights @ value[start:end, head // share]
    return out


def seen(case: Case, tokens: int) -> Tensor:
    """[tokens, tokens]: whether a query (row) attends to a key (column)."""
    ahead = torch.arange(tokens) - torch.arange(tokens)[:, None]
    near = (
        ahead.abs() <= case.window if case.window != NO_WINDOW else torch.ones_like(ahead, dtype=torch.bool)
    )
    return near & (ahead <= 0) if case.causal else near


def by_sdpa(query, key, value, cu_seqlens, longest, *how) -> Tensor:
    """What runs on processors without the C++ kernel."""
    return attention.by_sdpa(query, key, value, cu_seqlens, *how)


WAYS = pytest.mark.parametrize("attend", [packed_attention, by_sdpa], ids=["operator", "sdpa"])


def assert_close(
    case: Case, dtype: torch.dtype, device: str = "cpu", steps: int = 4, attend=packed_attention
) -> None:
    """Within so many rounding steps of the largest value."""
    arguments = case.arguments(dtype, device)
    out = attend(*arguments)
    assert (out.shape, out.dtype, out.is_contiguous()) == (arguments[0].shape, dtype, True)
    error = (out.double().cpu() - attended(case, *arguments[:3])).abs().max()
    assert error <= steps * torch.finfo(dtype).eps * arguments[2].abs().max().item()


@WAYS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@strategies.FEW
@given(case=cases)
def test_each_document_attends_to_itself_alone(attend, dtype, case):
    assert_close(case, dtype, attend=attend)


@WAYS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", EDGES, ids=str)
def test_each_document_attends_to_itself_alone_at_the_edges(attend, dtype, case):
    assert_close(case, dtype, attend=attend)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "case", [*EDGES, Case((512, 37, 1, 200, 0), (4, 2)), Case((300, 300, 7), causal=True)], ids=str
)
def test_each_document_attends_to_itself_alone_on_a_gpu(dtype, case):
    if dtype == torch.float32 and case.window != NO_WINDOW:
        with pytest.raises(NotImplementedError, match=r"float32 attention in a window"):
            packed_attention(*case.arguments(dtype, "cuda"))
    else:
        # tensor cores make one float32 product of three shorter ones
        assert_close(case, dtype, "cuda", steps=32 if dtype == torch.float32 else 4)


@WAYS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@strategies.FEW
@given(
    case=cases,
    before=st.lists(st.integers(0, 40), max_size=3),
    after=st.lists(st.integers(0, 40), max_size=3),
)
@example(case=Case((9,)), before=[9, 9], after=[9])
@example(case=Case((40,), window=3), before=[40], after=[40, 40])
def test_no_bit_of_a_document_depends_on_its_neighbours(attend, dtype, case, before, after):
    """Not even on neighbours that are not numbers."""
    query, key, value, cu_seqlens, longest, *how = case.arguments(dtype)
    alone = attend(query, key, value, cu_seqlens, longest, *how)
    parts = [torch.cat([nan(part, before), part, nan(part, after)]) for part in (query, key, value)]
    cu_seqlens = torch.tensor([0, *accumulate([*before, *case.lengths, *after])], dtype=torch.int32)
    among = attend(*parts, cu_seqlens, max(longest, 40), *how)
    assert torch.equal(among[sum(before) : sum(before) + len(alone)], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_cuda_answers_is_laid_out_as_the_compiler_is_told(dtype):
    """Whatever the queries' strides are: by PyTorch's own description of its kernels, so without a GPU."""
    arguments = Case((9, 4), heads=(4, 2), transposed=True).arguments(dtype)
    described = [part.to("meta") if isinstance(part, Tensor) else part for part in arguments]
    assert not described[0].is_contiguous()
    told = torch.empty(described[0].shape)
    out = attention._on_cuda(*described)
    assert (out.shape, out.stride(), out.dtype) == (told.shape, told.stride(), dtype)


def nan(part: Tensor, lengths: list[int]) -> Tensor:
    return torch.full((sum(lengths), *part.shape[1:]), torch.nan, dtype=part.dtype)


@pytest.mark.parametrize("case", EDGES[2:], ids=str)
def test_it_is_an_operator_as_pytorch_wants_them(case):
    torch.library.opcheck(packed_attention, case.arguments(torch.float32))


def test_one_graph_serves_all_sizes():
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(
        lambda *arguments: packed_attention(*arguments) * 2, fullgraph=True, backend=counter, dynamic=True
    )
    for lengths in ((9, 9, 4, 0), (3, 17, 2, 5, 8), (30, 2, 2)):
        arguments = Case(lengths, heads=(4, 2), causal=True, window=5).arguments(torch.float32)
        assert torch.equal(compiled(*arguments), packed_attention(*arguments) * 2)
    assert counter.frame_count == 1


@pytest.fixture(scope="module", params=["bert", "modernbert-windows", "qwen2", "qwen3", "qwen3-windows"])
def checkpoint(request, tmp_path_factory):
    return checkpoints.make(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("masked", [True, False])
def test_padded_batches_are_attended_to_as_by_eager_attention(checkpoint, masked):
    pairs = ["a question", "why", "names", ""], ["document " * 60, "", "are bound by constructs", "b " * 20]
    batch = AutoTokenizer.from_pretrained(checkpoint)(
        *pairs, truncation=True, padding=True, return_tensors="pt"
    )
    if not masked:
        del batch["attention_mask"]
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()
    with torch.inference_mode():
        eager = model(**batch).logits
        model.set_attn_implementation(PACKED_ATTENTION)
        packed = model(**batch).logits
    assert model.config._attn_implementation == PACKED_ATTENTION
    assert eager.std() > 0.1
    torch.testing.assert_close(packed, eager, rtol=0, atol=1e-5)
