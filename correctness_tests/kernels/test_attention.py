"""The C++ attention against float64 written out per document; and no bit depends on company or threads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from correctness_tests import strategies
from correctness_tests.kernels.attention_cases import IN_ALL_DTYPES, LENGTHS, Case
from xenc.kernels.library import DTYPES
from xenc.kernels.packed_attention import NO_WINDOW

pytestmark = pytest.mark.usefixtures("kernels")

SIZES = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128)
ODD_SIZES = (1, 3, 15, 17, 20, 33, 65, 100)

cases = st.builds(
    Case,
    lengths=LENGTHS,
    heads=st.sampled_from([(1, 1), (2, 2), (3, 3), (4, 2), (6, 2), (4, 1)]),
    size=st.sampled_from(SIZES + ODD_SIZES),
    causal=st.booleans(),
    window=st.one_of(st.just(NO_WINDOW), st.integers(0, 20), st.integers(0, 320)),
    cap=st.sampled_from([0.0, 0.0, 0.1, 1.0, 50.0]),
    laid_out=st.sampled_from(["apart", "joint", "transposed"]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)  # fmt: skip


@given(case=cases)
def test_each_document_attends_to_itself_alone(case):
    case.assert_right()


@IN_ALL_DTYPES
@pytest.mark.parametrize("size", SIZES + ODD_SIZES)
@pytest.mark.parametrize("laid_out", ["apart", "joint", "transposed"])
def test_heads_of_every_size_and_layout_are_right(dtype, size, laid_out):
    Case(lengths=(37, 1, 70, 6), heads=(4, 2), size=size, laid_out=laid_out, dtype=dtype).assert_right()


EDGES = [1, 2, 5, 6, 7, 11, 12, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 511, 512, 513]


@IN_ALL_DTYPES
@pytest.mark.parametrize("tokens", EDGES)
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("window", [NO_WINDOW, 3, 64], ids="window {}".format)
def test_documents_at_the_edges_of_a_block_are_right(dtype, tokens, causal, window):
    Case(lengths=(tokens, 3), heads=(2, 1), size=24, causal=causal, window=window, dtype=dtype).assert_right()


@IN_ALL_DTYPES
@pytest.mark.parametrize("tokens", [1023, 1024, 1025, 2048, 2049])
@pytest.mark.parametrize(
    ("causal", "window"),
    [(False, NO_WINDOW), (True, NO_WINDOW), (False, 400), (True, 400), (False, 1100), (True, 1100)],
)
def test_documents_of_more_than_one_block_of_keys_are_right(dtype, tokens, causal, window):
    Case(lengths=(tokens, 5), heads=(1, 1), size=20, causal=causal, window=window, dtype=dtype).assert_right()


@IN_ALL_DTYPES
@pytest.mark.parametrize("cap", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("scale", [1e-3, None, 30.0])
@pytest.mark.parametrize(("tokens", "causal"), [(40, False), (1500, True)])
def test_scores_near_a_cap_and_far_below_it_are_right(dtype, cap, scale, tokens, causal):
    Case(lengths=(tokens,), size=64, scale=scale, cap=cap, causal=causal, dtype=dtype).assert_right()


@pytest.mark.slow
@IN_ALL_DTYPES
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("window", [NO_WINDOW, 128, 1500, 4096], ids="window {}".format)
def test_a_document_of_8192_tokens_is_right(dtype, causal, window):
    Case(lengths=(8192,), heads=(1, 1), size=64, causal=causal, window=window, dtype=dtype).assert_right()


@IN_ALL_DTYPES
@pytest.mark.parametrize("tokens", [40, 1500])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 30.0])
def test_flat_and_saturated_scores_are_right(dtype, tokens, scale):
    Case(lengths=(tokens,), heads=(2, 2), size=64, scale=scale, dtype=dtype).assert_right()


@IN_ALL_DTYPES
@pytest.mark.parametrize("rising", [True, False], ids=["rising", "falling"])
def test_scores_whose_largest_stands_in_any_block_are_right(dtype, rising):
    """The online softmax shrinks what it has summed when a later block holds a larger score, by e^60 here."""
    case = Case(lengths=(3000,), heads=(1, 1), size=16, scale=1.0, dtype=dtype)
    query, key, value = case.parts()
    slope = torch.linspace(0, 60, 3000) if rising else torch.linspace(60, 0, 3000)
    query[:, :, 0], key[:, :, 0] = 1, slope[:, None].to(dtype)
    exact = case.in_float64(query, key, value)
    error = (case.attend(query, key, value).double() - exact).abs().max()
    assert error <= {torch.float32: 1e-4, torch.bfloat16: 0.04, torch.float16: 0.01}[dtype]


@IN_ALL_DTYPES
@pytest.mark.parametrize("part", [0, 1, 2], ids=["query", "key", "value"])
@pytest.mark.parametrize("amiss", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize(("tokens", "at"), [(40, 0), (40, 39), (20, 17), (1500, 3), (1500, 1400)])
@pytest.mark.parametrize("size", [20, 64])
def test_what_is_not_finite_shows_as_in_float64(dtype, part, amiss, tokens, at, size):
    case = Case(lengths=(tokens,), heads=(1, 1), size=size, dtype=dtype)
    parts = case.parts()
    parts[part][at, 0, size - 1] = amiss
    assert_behaves(case, parts)


@IN_ALL_DTYPES
@pytest.mark.parametrize(
    ("tokens", "amiss"),
    [
        *[(40, slice(0, 5)), (40, slice(30, 40)), (40, slice(0, 40))],
        *[(2500, slice(0, 1024)), (2500, slice(1024, 2500)), (2500, slice(0, 2500))],  # whole blocks
    ],
    ids=str,
)
def test_a_score_of_minus_infinity_weighs_nothing(dtype, tokens, amiss):
    case = Case(lengths=(tokens,), heads=(1, 1), size=32, dtype=dtype)
    parts = case.parts()
    parts[0][:, 0, 0] = 1
    parts[1][amiss, 0, 0] = -torch.inf
    assert_behaves(case, parts)


def assert_behaves(case: Case, parts) -> None:
    out, exact = case.attend(*parts).double(), case.in_float64(*parts)
    assert torch.equal(out.isnan(), exact.isnan())
    finite = exact.isfinite()
    steps = 8 * torch.finfo(case.dtype).eps if case.dtype != torch.float32 else 1e-5
    assert (out - exact)[finite].abs().max().item() <= steps * 5 if finite.any() else True
    assert torch.equal(out[~finite & ~exact.isnan()], exact[~finite & ~exact.isnan()])


@strategies.FEW
@given(
    case=cases,
    before=st.lists(st.integers(0, 300), max_size=3),
    after=st.lists(st.integers(0, 300), max_size=3),
)
@example(case=Case(lengths=(1025,), dtype=torch.bfloat16), before=[1], after=[1024])
@example(case=Case(lengths=(300,), window=3, causal=True), before=[13], after=[300])
def test_no_bit_of_a_document_depends_on_its_company_or_its_place(case, before, after):
    """Not even on neighbours that are not numbers."""
    assert torch.equal(case.attend_among(before, after), case.attend(*case.parts()))


@IN_ALL_DTYPES
@pytest.mark.parametrize("laid_out", ["apart", "joint", "transposed"])
def test_no_bit_depends_on_the_layout(dtype, laid_out):
    case = Case(lengths=(300, 7, 64), heads=(4, 2), size=40, laid_out=laid_out, dtype=dtype)
    parts = case.parts()
    assert torch.equal(case.attend(*parts), case.attend(*(part.contiguous() for part in parts)))


@IN_ALL_DTYPES
def test_no_bit_depends_on_the_number_of_threads(dtype, threads):
    case = Case(lengths=(1100, 7, 300, 64, 64, 1), heads=(4, 2), causal=True, dtype=dtype)
    answers = []
    for count in (1, 2, 3):
        threads(count)
        answers.append(case.attend(*case.parts()))
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


@IN_ALL_DTYPES
def test_the_kernel_is_what_answers(dtype, monkeypatch):
    monkeypatch.setattr("xenc.kernels.packed_attention.by_sdpa", None)
    Case(lengths=(5,), dtype=dtype).assert_right()


def test_other_dtypes_are_left_to_pytorch():
    case = Case(lengths=(5, 20), dtype=torch.float64)
    parts = case.parts()
    torch.testing.assert_close(case.attend(*parts), case.in_float64(*parts), rtol=0, atol=1e-12)
