"""What an exported model's runtime is: what it can run, and a session of it.

Shapes: B = rows of a batch, L = padded length, C = labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor

from ..collate import PaddedBatch

INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
"""Names of an exported model's inputs, as `PaddedBatch.arguments` are ordered."""

OUTPUT: Final = "logits"
"""The name of its one output."""


class Session(Protocol):
    """An exported model, loaded for some number of CPU threads."""

    def __call__(self, batch: PaddedBatch) -> Tensor:
        """Logits of a batch: float32 [B, C], on the batch's device."""
        ...


class Runtime(Protocol):
    """Runs exported models."""

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse what cannot run.

        Raises:
            ExecutionError: a device, or a dtype on that device; the message names the remedy.
        """
        ...

    def open(self, file: Path, device: torch.device, dtype: torch.dtype, threads: int) -> Session:
        """Load an ONNX file, to run on this device in this dtype with this many CPU threads at most."""
        ...


def named_inputs(batch: PaddedBatch) -> dict[str, Tensor]:
    """A batch's tensors by the names of the exported model's inputs, int64 [B, L] each."""
    named = zip(INPUTS, batch.arguments, strict=True)
    return {name: tensor.contiguous() for name, tensor in named if tensor is not None}
