"""Packed attention by PyTorch's kernels against float64, and in padded models against eager attention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from correctness_tests import checkpoints, strategies
from correctness_tests.kernels.attention_cases import Case
from xenc.kernels import packed_attention as attention
from xenc.kernels.packed_attention import NO_WINDOW, PACKED_ATTENTION, packed_attention

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)

cases = st.builds(
    Case,
    lengths=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=6)
    .filter(any)
    .map(tuple),
    heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (6, 2), (4, 1)]),
    size=st.just(16),
    causal=st.booleans(),
    window=st.one_of(st.just(NO_WINDOW), st.integers(0, 4), st.integers(0, 45)),
    cap=st.sampled_from([0.0, 0.5]),
    laid_out=st.sampled_from(["apart", "transposed"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)

EDGES = (
    Case(lengths=(1,)),
    Case(lengths=(1, 1, 1), window=0),
    Case(lengths=(9, 9, 4, 9), causal=True),
    Case(lengths=(9, 9, 4, 0, 0), heads=(4, 2), window=3),
    Case(lengths=(9, 4), window=8),
    Case(lengths=(9, 4), window=7, causal=True),
    Case(lengths=(0, 5, 0, 5, 0), causal=True, laid_out="transposed"),
)
CAPPED = (
    Case(lengths=(9, 4, 9), cap=0.5),
    Case(lengths=(9, 9, 4), causal=True, heads=(4, 2), cap=0.5),
    Case(lengths=(9, 4), window=3, causal=True, cap=0.5),
)
"""On CPUs only."""


def by_sdpa(query, key, value, cu_seqlens, longest, *how) -> Tensor:
    """What runs on processors without the C++ kernel, whose laws are in test_attention.py."""
    return attention.by_sdpa(query, key, value, cu_seqlens, *how)


def arguments_of(case: Case) -> tuple:
    """What the operator takes."""
    return case.attend(*case.parts(), attention=lambda *arguments: arguments)


@strategies.FEW
@given(case=cases)
def test_each_document_attends_to_itself_alone(case):
    case.assert_right(by_sdpa, steps=4)


@DTYPES
@pytest.mark.parametrize("case", EDGES + CAPPED, ids=str)
def test_each_document_attends_to_itself_alone_at_the_edges(dtype, case):
    replace(case, dtype=dtype).assert_right(by_sdpa, steps=4)


@pytest.mark.gpu
@DTYPES
@pytest.mark.parametrize(
    "case",
    [
        *EDGES,
        Case(lengths=(512, 37, 1, 200, 0), heads=(4, 2)),
        Case(lengths=(300, 300, 7), causal=True),
    ],
    ids=str,
)
def test_each_document_attends_to_itself_alone_on_a_gpu(dtype, case):
    case = replace(case, dtype=dtype)
    if dtype == torch.float32 and case.window != NO_WINDOW:
        with pytest.raises(NotImplementedError, match=r"float32 attention in a window"):
            case.assert_right(device="cuda")
    else:  # tensor cores make one float32 product of three shorter ones
        case.assert_right(device="cuda")


@strategies.FEW
@given(
    case=cases,
    before=st.lists(st.integers(0, 40), max_size=3),
    after=st.lists(st.integers(0, 40), max_size=3),
)
@example(case=Case(lengths=(9,)), before=[9, 9], after=[9])
@example(case=Case(lengths=(40,), window=3), before=[40], after=[40, 40])
def test_no_bit_of_a_document_depends_on_its_neighbours(case, before, after):
    """Not even on neighbours that are not numbers."""
    assert torch.equal(case.attend_among(before, after, by_sdpa), case.attend(*case.parts(), by_sdpa))


@DTYPES
def test_what_cuda_answers_is_laid_out_as_the_compiler_is_told(dtype):
    """Whatever the queries' strides are: by PyTorch's own description of its kernels, so without a GPU."""
    arguments = arguments_of(Case(lengths=(9, 4), heads=(4, 2), laid_out="transposed", dtype=dtype))
    described = [part.to("meta") if isinstance(part, Tensor) else part for part in arguments]
    assert not described[0].is_contiguous()
    told = torch.empty(described[0].shape)
    out = attention._on_cuda(*described)
    assert (out.shape, out.stride(), out.dtype) == (told.shape, told.stride(), dtype)


@pytest.mark.parametrize("case", EDGES[2:] + CAPPED, ids=str)
def test_it_is_an_operator_as_pytorch_wants_them(case):
    torch.library.opcheck(packed_attention, arguments_of(case))


def test_one_graph_serves_all_sizes():
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(
        lambda *arguments: packed_attention(*arguments) * 2, fullgraph=True, backend=counter, dynamic=True
    )
    for lengths in ((9, 9, 4, 0), (3, 17, 2, 5, 8), (30, 2, 2)):
        arguments = arguments_of(Case(lengths=lengths, heads=(4, 2), causal=True, window=5))
        assert torch.equal(compiled(*arguments), packed_attention(*arguments) * 2)
    assert counter.frame_count == 1


@pytest.fixture(
    scope="module",
    params=["bert", "modernbert-windows", "qwen2", "qwen3", "qwen3-windows", "gemma2-capped", "gemma3_text"],
)
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
