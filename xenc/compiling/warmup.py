"""The interface of compiled forward passes, and the report of their warm-up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..batching.packed_collate import PackedBatch
from ..batching.padded_collate import PaddedBatch
from ..batching.prefix_collate import PrefixedBatch

Batch = PaddedBatch | PackedBatch | PrefixedBatch


@dataclass(frozen=True, kw_only=True)
class WarmupReport:
    """What a warm-up did.

    Attributes:
        shapes: shapes run, (B, L) of padded batches or (T, N) of packed ones.
        graphs: graphs compiled.
        seconds: duration, including compilation.
        products: the implementation of the encoder's matrix products; see `Execution.products`.
    """

    shapes: tuple[tuple[int, int], ...] = ()
    graphs: int = 0
    seconds: float = 0.0
    products: str = ""


class PreparedForward(ABC):
    """A forward pass that must be compiled before it runs.

    Attributes:
        strict: whether compiling after `warmup` is an error; otherwise it is a warning, logged once.
    """

    strict: bool

    @property
    @abstractmethod
    def graphs(self) -> int:
        """Graphs compiled so far for this forward pass."""

    @abstractmethod
    def __call__(self, batch: Any) -> Tensor:
        """Logits of a batch, [B, C] or [N, C].

        Raises:
            CompileError: something compiled after warm-up, in strict mode.
        """

    @abstractmethod
    def warmup(self, batches: Iterable[Any], passes: int | None = None) -> WarmupReport:
        """Run every batch. Call it in the thread and grad mode that will predict.

        Args:
            batches: one of each shape.
            passes: how often each runs; None for three times under CUDA graphs and once without.
        """
