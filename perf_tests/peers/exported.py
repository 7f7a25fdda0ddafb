"""A checkpoint as other systems read it, made once and kept with the models. Imports nothing of xenc."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from perf_tests.models import saved_once


class Classifier(torch.nn.Module):
    """Logits [B, 1] of arrays [B, L], for that is what can be exported.

    Args:
        checkpoint: the weights, in float32.
        attention: transformers' name of an implementation.
    """

    def __init__(self, checkpoint: Path, attention: str) -> None:
        super().__init__()
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation=attention
        ).eval()
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.inputs = [
            name
            for name in ("input_ids", "attention_mask", "token_type_ids")
            if name in tokenizer.model_input_names
        ]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits [B, 1]."""
        others = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **others).logits
        return logits

    def example(self) -> dict[str, Tensor]:
        """Arrays to trace with: two sizes that differ, and a mask that masks."""
        arrays = {name: torch.zeros((2, 8), dtype=torch.int64) for name in self.inputs}
        arrays["attention_mask"][:, :5] = 1
        return arrays


def kept(
    kind: str,
    checkpoint: Path,
    source: Path,
    libraries: tuple[str, ...],
    make: Callable[[Path], None],
    *more: object,
) -> Path:
    """A folder that `make` has filled, once per weights, versions, and the file that says how.

    Args:
        kind: what it is, as part of the folder's name.
        checkpoint: what it is made of.
        source: the file that says how.
        libraries: whose versions count, besides torch's and transformers'.
        make: fills a folder that does not exist yet.
        more: what else it depends on.
    """  # fmt: skip
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in [*sorted(checkpoint.glob("*.safetensors")), checkpoint / "config.json"]:
        digest.update(file.read_bytes())
    used = {name: version(name) for name in ("torch", "transformers", *libraries)}
    digest.update(repr((used, more)).encode())
    return saved_once(f"{checkpoint.name}-{kind}-{digest.hexdigest()[:12]}", source, make)
