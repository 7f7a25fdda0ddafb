"""Documents and how they attend, and what comes of it in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from xenc.kernels.library import DTYPES
from xenc.kernels.packed_attention import NO_WINDOW, packed_attention

STEPS = {torch.float32: 32, torch.bfloat16: 4, torch.float16: 4}
"""Rounding steps of the largest value that an answer may be off."""

IN_ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)

LENGTHS = (
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 40), st.integers(0, 300)), min_size=1, max_size=5)
    .filter(any)
    .map(tuple)
)
"""Tokens of a few documents, of which one is not empty."""

_AT_ONCE = 1024
"""Queries whose float64 scores are held at once."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Documents of so many tokens, and how to attend within each.

    Attributes:
        lengths: tokens of each document.
        heads: of queries, and of keys and values.
        size: of a head.
        causal, window, scale, cap: as of `packed_attention`; scale None for 1 / sqrt(size).
        laid_out: "apart", "joint" for views of one product of all three, "transposed" for heads first.
        dtype: of all three.
        seed: of their numbers.
    """

    lengths: tuple[int, ...]
    heads: tuple[int, int] = (2, 2)
    size: int = 32
    causal: bool = False
    window: int = NO_WINDOW
    scale: float | None = None
    cap: float = 0.0
    laid_out: Literal["apart", "joint", "transposed"] = "apart"
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __str__(self) -> str:
        unlike = {name: value for name, value in vars(self).items() if value != getattr(Case, name, None)}
        return " ".join(f"{name}={value}" for name, value in unlike.items()).replace("torch.", "")

    @property
    def factor(self) -> float:
        """Of the scores."""
        return self.size**-0.5 if self.scale is None else self.scale

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query [T, H, D], key and value [T, K, D], of unit spread."""
        generator = torch.Generator().manual_seed(self.seed)
        tokens, (heads, key_heads) = sum(self.lengths), self.heads
        counts = (heads, key_heads, key_heads)
        if self.laid_out == "transposed":
            made = torch.randn(sum(counts), tokens, self.size, generator=generator).transpose(0, 1)
        else:
            made = torch.randn(tokens, sum(counts), self.size, generator=generator)
        query, key, value = made.to(self.dtype).split(counts, dim=1)
        if self.laid_out == "apart":
            return query.contiguous(), key.contiguous(), value.contiguous()
        return query, key, value

    def cu_seqlens(self) -> list[int]:
        """The first token of each document, and the number of all."""
        return [0, *accumulate(self.lengths)]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, attention=packed_attention) -> Tensor:
        """What the operator answers."""
        cu_seqlens = torch.tensor(self.cu_seqlens(), dtype=torch.int32, device=query.device)
        longest = max(1, *self.lengths)
        how = (self.factor, self.causal, self.window, *((self.cap,) if self.cap else ()))
        return attention(query, key, value, cu_seqlens, longest, *how)

    def in_float64(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """One document and one head at a time."""
        query, key, value = (part.double().cpu() for part in (query, key, value))
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        share = self.heads[0] // self.heads[1]
        for start, end in pairwise(self.cu_seqlens()):
            for first in range(start, end, _AT_ONCE):
                rows = slice(first, min(end, first + _AT_ONCE))
                unseen = ~self._seen(torch.arange(rows.start - start, rows.stop - start), end - start)
                for head in range(self.heads[0]):
                    scores = query[rows, head] @ key[start:end, head // share].T * self.factor
                    scores = self.cap * (scores / self.cap).tanh() if self.cap else scores
                    weights = scores.masked_fill(unseen, -torch.inf).softmax(dim=-1)
                    out[rows, head] = weights @ value[start:end, head // share]
        return out

    def _seen(self, rows: Tensor, tokens: int) -> Tensor:
        """[rows, tokens]: whether a query (row) attends to a key (column)."""
        ahead = torch.arange(tokens) - rows[:, None]
        near = ahead.abs() <= (tokens if self.window == NO_WINDOW else self.window)
        return near & (ahead <= 0) if self.causal else near

    def attend_among(self, before: list[int], after: list[int], attention=packed_attention) -> Tensor:
        """The documents' answers between other documents, which are not numbers."""
        parts = [
            torch.cat([not_numbers(part, sum(before)), part, not_numbers(part, sum(after))])
            for part in self.parts()
        ]
        among = replace(self, lengths=(*before, *self.lengths, *after))
        return among.attend(*parts, attention)[sum(before) :][: sum(self.lengths)]

    def assert_right(self, attention=packed_attention, device: str = "cpu", steps: int | None = None) -> None:
        """The answer is what float64 says, within so many rounding steps of the largest value.

        A score is a sum that is rounded, so the larger scores are the more their exponentials are off.
        """
        query, key, value = (part.to(device) for part in self.parts())
        out = self.attend(query, key, value, attention)
        assert (out.shape, out.dtype, out.is_contiguous()) == (query.shape, self.dtype, True)
        largest_score = float(query.norm(dim=-1).max() * key.norm(dim=-1).max()) * self.factor
        eps = torch.finfo(self.dtype).eps * (steps or STEPS[self.dtype])
        allowed = eps + torch.finfo(torch.float32).eps * max(0.0, largest_score - 64)
        error = (out.double().cpu() - self.in_float64(query, key, value)).abs().max().item()
        assert not math.isnan(error)
        assert error <= allowed * value.abs().max().item()


def not_numbers(part: Tensor, rows: int) -> Tensor:
    """So many rows of a part's kind."""
    return torch.full((rows, *part.shape[1:]), torch.nan, dtype=part.dtype)
