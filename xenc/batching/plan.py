"""What a plan is: which pairs of a request share a batch, and in which static shape. Pure integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """One batch: `rows` are indices of pairs, and the batch's shape is [batch_size, length].

    A batch with fewer rows than batch_size is filled with dummy rows when it is collated.
    """

    rows: tuple[int, ...]
    batch_size: int
    length: int

    @property
    def all_tokens(self) -> int:
        """Tokens the device will process."""
        return self.batch_size * self.length


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """One packed batch: `rows` are indices of pairs, laid end to end in `tokens` tokens.

    The batch has slots for `max_sequences` documents of at most `max_seqlen` tokens. Tokens that the pairs
    leave over become dummy documents when it is collated.
    """

    rows: Sequence[int]
    tokens: int
    max_sequences: int
    max_seqlen: int

    @property
    def all_tokens(self) -> int:
        """Tokens the device will process."""
        return self.tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """All batches of one request; each pair stands in exactly one of them.

    `shared_tokens` of the pairs' `real_tokens` need no computing, since another pair's are the same.
    """

    batches: tuple[BatchPlan | PackedPlan, ...]
    real_tokens: int
    shared_tokens: int = 0

    @property
    def all_tokens(self) -> int:
        """Tokens the device will process: real ones, padding, dummy rows and dummy documents."""
        return sum(batch.all_tokens for batch in self.batches)

    @property
    def waste(self) -> float:
        """Padded tokens / all tokens, in [0, 1); 0 for an empty plan."""
        return 1 - (self.real_tokens - self.shared_tokens) / self.all_tokens if self.batches else 0.0
