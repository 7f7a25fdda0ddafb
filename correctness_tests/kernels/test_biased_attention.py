"""Attention with a bias by distance: by the C++ kernel and by PyTorch, against float64 written out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from correctness_tests import strategies
from correctness_tests.kernels.attention_cases import IN_ALL_DTYPES, LENGTHS, Case, not_numbers
from xenc.kernels import biased_attention as operators
from xenc.kernels.biased_attention import biased_attention
from xenc.kernels.library import DTYPES

TERMS = ("numbers", "keys", "queries")
FAR = 60
"""Farthest distance that has a bucket of its own."""


@dataclass(frozen=True, kw_only=True)
class Biased:
    """Documents, and what their scores gain.

    Attributes:
        case: the documents.
        buckets: how many.
        terms: what a bucket has.
    """

    case: Case
    buckets: int = 9
    terms: tuple[str, ...] = TERMS

    def __str__(self) -> str:
        return f"{self.case} buckets={self.buckets} {'+'.join(self.terms)}"

    def bias(self, longest: int) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Buckets [2 R + 1], numbers [H, P], keys and queries [P, H, D], as the operator takes them."""
        generator = torch.Generator().manual_seed(self.case.seed + 1)
        near = torch.randint(self.buckets, (2 * FAR + 1,), generator=generator)
        buckets = near[torch.arange(1 - longest, longest).clamp(-FAR, FAR) + FAR].int()
        heads, size = self.case.heads[0], self.case.size
        made = torch.randn(2, self.buckets, heads, size, generator=generator).to(self.case.dtype)
        numbers = torch.randn(heads, self.buckets, generator=generator)
        has = [term in self.terms for term in TERMS]
        parts = zip((numbers, *made), has, strict=True)
        numbers_, keys, queries = (part if there else None for part, there in parts)
        return buckets, numbers_, keys, queries

    def attend(self, parts: Any = None, attention: Any = biased_attention) -> Tensor:
        """What the operator answers."""
        query, key, value = self.case.parts() if parts is None else parts
        longest = max(1, *self.case.lengths)
        bounds = torch.tensor(self.case.cu_seqlens(), dtype=torch.int32)
        return attention(query, key, value, bounds, longest, self.case.factor, *self.bias(longest + 2))

    def attend_among(self, before: list[int], after: list[int], attention: Any) -> Tensor:
        """The documents' answers between other documents, which are not numbers."""
        parts = [
            torch.cat([not_numbers(part, sum(before)), part, not_numbers(part, sum(after))])
            for part in self.case.parts()
        ]
        among = replace(self, case=replace(self.case, lengths=(*before, *self.case.lengths, *after)))
        return among.attend(parts, attention)[sum(before) :][: sum(self.case.lengths)]

    def in_float64(self) -> Tensor:
        """One document and one head at a time, one bucket for each pair."""
        query, key, value = (part.double() for part in self.case.parts())
        longest = max(1, *self.case.lengths) + 2
        buckets, *terms = self.bias(longest)
        numbers, keys, queries = (None if term is None else term.double() for term in terms)
        out = torch.empty(query.shape, dtype=torch.float64)
        for start, end in pairwise(self.case.cu_seqlens()):
            position = torch.arange(end - start)
            pair = buckets.long()[position - position[:, None] + longest - 1]
            for head in range(self.case.heads[0]):
                q, k = query[start:end, head], key[start:end, head]
                scores = q @ k.T
                if keys is not None:
                    scores = scores + torch.einsum("id,ijd->ij", q, keys[pair, head])
                if queries is not None:
                    scores = scores + torch.einsum("jd,ijd->ij", k, queries[pair, head])
                scores = scores * self.case.factor
                scores = scores if numbers is None else scores + numbers[head][pair]
                out[start:end, head] = scores.softmax(-1) @ value[start:end, head]
        return out

    def assert_right(self, attention: Any = biased_attention) -> None:
        """Within some rounding steps of the largest value."""
        out, value = self.attend(attention=attention), self.case.parts()[2]
        assert (out.shape, out.dtype, out.is_contiguous()) == (value.shape, self.case.dtype, True)
        steps = 64 if self.case.dtype == torch.float32 else 4
        error = (out.double() - self.in_float64()).abs().max().item()
        assert error <= steps * torch.finfo(self.case.dtype).eps * value.abs().max().item()


def by_sdpa(query, key, value, cu_seqlens, _, *how) -> Tensor:
    """What runs on processors without the C++ kernel."""
    return operators.biased_by_sdpa(query, key, value, cu_seqlens, *how)


WAYS = pytest.mark.parametrize("attend", [biased_attention, by_sdpa], ids=["operator", "sdpa"])

biased = st.builds(
    Biased,
    case=st.builds(
        Case,
        lengths=LENGTHS,
        heads=st.sampled_from([(1, 1), (2, 2), (3, 3)]),
        size=st.sampled_from((1, 8, 15, 16, 20, 32, 33, 64)),
        scale=st.sampled_from([None, 1e-2]),
        laid_out=st.sampled_from(["apart", "joint", "transposed"]),
        dtype=st.sampled_from(DTYPES),
        seed=st.integers(0, 99),
    ),
    buckets=st.sampled_from([1, 2, 15, 16, 17, 64, 65, 100]),
    terms=st.sets(st.sampled_from(TERMS), min_size=1).map(lambda some: tuple(sorted(some))),
)


@WAYS
@given(case=biased)
@example(case=Biased(case=Case(lengths=(1025, 3), dtype=torch.bfloat16), buckets=70))
@example(case=Biased(case=Case(lengths=(257,), size=20, dtype=torch.float16), terms=("keys",)))
def test_scores_gain_what_the_bucket_says(attend, case):
    case.assert_right(attend)


@IN_ALL_DTYPES
@pytest.mark.parametrize("terms", [(term,) for term in TERMS], ids=str)
@pytest.mark.parametrize("tokens", [1, 5, 6, 7, 12, 13, 15, 16, 17, 255, 256, 257, 1024, 1025, 2049])
def test_documents_at_the_edges_of_a_block_are_right(dtype, terms, tokens):
    Biased(case=Case(lengths=(tokens, 3), heads=(1, 1), size=24, dtype=dtype), terms=terms).assert_right()


@strategies.FEW
@given(case=biased, before=st.integers(0, 300), after=st.integers(0, 300))
@example(case=Biased(case=Case(lengths=(300,), dtype=torch.bfloat16)), before=13, after=300)
def test_no_bit_of_a_document_depends_on_its_company_or_its_place(case, before, after):
    """Not even on neighbours that are not numbers."""
    alone = case.attend(attention=reaching(400))
    assert torch.equal(case.attend_among([before], [after], reaching(400)), alone)


def reaching(longest: int, attention: Any = biased_attention) -> Any:
    """The operator, told one longest document whatever the case's is."""

    def attend(query, key, value, bounds, _, scale, buckets, *bias):
        reach = len(buckets) // 2
        picked = torch.arange(1 - longest, longest).clamp(-reach, reach) + reach
        return attention(query, key, value, bounds, longest, scale, buckets[picked], *bias)

    return attend


@IN_ALL_DTYPES
def test_no_bit_depends_on_the_number_of_threads(dtype, threads):
    case = Biased(case=Case(lengths=(1100, 7, 300, 64, 64, 1), heads=(3, 3), dtype=dtype), buckets=70)
    answers = []
    for count in (1, 2, 3):
        threads(count)
        answers.append(case.attend())
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


@pytest.mark.usefixtures("kernels")
@IN_ALL_DTYPES
def test_the_kernel_is_what_answers(dtype, monkeypatch):
    monkeypatch.setattr("xenc.kernels.biased_attention.biased_by_sdpa", None)
    Biased(case=Case(lengths=(5,), dtype=dtype)).assert_right()


@pytest.mark.parametrize("terms", [TERMS, ("numbers",)], ids=str)
def test_it_is_an_operator_as_pytorch_wants_them(terms):
    case = Biased(case=Case(lengths=(9, 0, 4), laid_out="transposed"), terms=terms)
    torch.library.opcheck(biased_attention, case.attend(attention=lambda *arguments: arguments))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("at", "instead", "said"),
    [
        (6, lambda buckets: buckets.long(), r"buckets is Long .*: give int32"),
        (6, lambda buckets: buckets[:-1], r"as many to either side of distance 0"),
        (6, lambda buckets: buckets[8:-8], r"a document of 9 tokens: buckets reach to 2 to either side"),
        (6, lambda buckets: buckets - 100, r"buckets are -\d+ to -\d+: there are 9"),
        (6, lambda buckets: buckets + 9, r"there are 9"),
        (7, lambda numbers: numbers[:1], r"of_bucket is Float \[1, 9\]: give float32 \[2 heads, buckets\]"),
        (7, lambda numbers: numbers.double(), r"of_bucket is Double"),
        (8, lambda keys: keys[:-1], r"are Float \[8, 2, 32\]: give Float \[9, 2, 32\]"),
        (9, lambda queries: queries.bfloat16(), r"are BFloat16 \[9, 2, 32\]: give Float"),
        (1, lambda key: key[:, :1], r"with a bias they must have one shape"),
        (5, lambda scale: -scale, r"must be positive"),
    ],
)
def test_what_does_not_fit_is_named(at, instead, said):
    """And read beyond its end by nobody."""
    arguments = list(Biased(case=Case(lengths=(9, 4))).attend(attention=lambda *arguments: arguments))
    arguments[at] = instead(arguments[at])
    if at == 1:
        arguments[2] = instead(arguments[2])
    with pytest.raises(RuntimeError, match=said):
        biased_attention(*arguments)


@pytest.mark.usefixtures("kernels")
def test_no_bias_at_all_is_refused():
    with pytest.raises(RuntimeError, match="no bias: give one"):
        Biased(case=Case(lengths=(9,)), terms=()).attend()
