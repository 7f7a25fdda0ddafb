"""Plans: which pairs of a request share a batch, and in which static shape. Pure integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A padded batch [batch_size, length] of the pairs with indices `rows`, and dummy rows to fill it."""

    rows: tuple[int, ...]
    batch_size: int
    length: int

    @property
    def shape(self) -> tuple[int, int]:
        """(B, L)."""
        return self.batch_size, self.length

    @property
    def all_tokens(self) -> int:
        """Tokens that the device processes."""
        return self.batch_size * self.length

    @property
    def shared_tokens(self) -> int:
        """Tokens of its pairs that are computed once, for all of them."""
        return 0


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """A packed batch of `tokens` tokens: the pairs with indices `rows`, end to end, and dummy documents.

    It has slots for `max_sequences` documents of at most `max_seqlen` tokens.
    """

    rows: Sequence[int]
    tokens: int
    max_sequences: int
    max_seqlen: int

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return self.tokens, self.max_sequences

    @property
    def all_tokens(self) -> int:
        """Tokens that the device processes."""
        return self.tokens

    @property
    def shared_tokens(self) -> int:
        """Tokens of its pairs that are computed once, for all of them."""
        return 0


@dataclass(frozen=True, slots=True)
class Plan:
    """All batches of one request; each pair is in exactly one of them.

    Of the pairs' `real_tokens`, `shared_tokens` are not computed, since another pair's are the same.
    """

    batches: tuple[BatchPlan | PackedPlan, ...]
    real_tokens: int
    shared_tokens: int = 0

    @property
    def all_tokens(self) -> int:
        """Tokens that the device processes: real ones, padding, dummy rows and dummy documents."""
        return sum(batch.all_tokens for batch in self.batches)

    @property
    def waste(self) -> float:
        """Padding fraction: padded tokens / all tokens, in [0, 1); 0 for an empty plan."""
        return 1 - (self.real_tokens - self.shared_tokens) / self.all_tokens if self.batches else 0.0
