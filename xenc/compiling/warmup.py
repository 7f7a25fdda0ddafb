"""A forward pass that is prepared before the first request, and what it says if that was not enough."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..batching.packed_collate import PackedBatch
from ..batching.padded_collate import PaddedBatch
from ..batching.prefix_collate import PrefixedBatch
from ..errors import CompileError

logger = logging.getLogger(__name__)

Batch = PaddedBatch | PackedBatch | PrefixedBatch


@dataclass(frozen=True, kw_only=True)
class WarmupReport:
    """What a warm-up did.

    Attributes:
        shapes: shapes run, (B, L) of padded batches or (T, N) of packed ones.
        graphs: graphs compiled.
        seconds: taken, compilation included.
        products: what multiplies by the encoder's weights, and why; see `Execution.products`.
    """

    shapes: tuple[tuple[int, int], ...] = ()
    graphs: int = 0
    seconds: float = 0.0
    products: str = ""


class PreparedForward(ABC):
    """A forward pass that compiles something before it can run.

    Attributes:
        strict: whether what is prepared after `warmup` is an error; it is a warning otherwise, said once.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self._warned = False

    @property
    @abstractmethod
    def graphs(self) -> int:
        """Graphs compiled for this forward pass alone."""

    @abstractmethod
    def __call__(self, batch: Any) -> Tensor:
        """Logits of a batch, [B, C] or [N, C].

        Raises:
            CompileError: something was prepared after warm-up, in strict mode.
        """

    @abstractmethod
    def warmup(
        self, batches: Iterable[Any], passes: int | None = None, folder: Path | None = None
    ) -> WarmupReport:
        """Run every batch. Call it in the thread and grad mode that will predict.

        Args:
            batches: one of each shape.
            passes: how often each runs; None for as often as it takes.
            folder: where to find what an earlier process prepared, and to leave what this one does.
        """

    def _report_late(self, what: str, remedy: str) -> None:
        message = f"xenc {what}, after warm-up. {remedy}"
        if self.strict:
            raise CompileError(message)
        if not self._warned:
            self._warned = True
            logger.warning("%s (said once; strict=True makes it an error)", message)
