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
    """Logits [B, 1] of arrays [B, L], in float32, under an attention implementation of transformers."""

    def __init__(self, checkpoint: Path, attention: str) -> None:
        super().__init__()
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation=attention
        ).eval()
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        names = ("input_ids", "attention_mask", "token_type_ids")
        self.inputs = [name for name in names if name in tokenizer.model_input_names]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        others = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **others).logits
        return logits

    def example(self) -> dict[str, Tensor]:
        """Arrays to trace with: two sizes that differ, and a mask that masks."""
        arrays = {name: torch.zeros((2, 8), dtype=torch.int64) for name in self.inputs}
        arrays["attention_mask"][:, :5] = 1
        return arrays


def kept(
    kind: str, checkpoint: Path, source: Path, libraries: tuple[str, ...], make: Callable[[Path], None],
    *more: object,
) -> Path:  # fmt: skip
    """A folder that `make` has filled, once per weights, versions, source file, and whatever `more` holds.

    Args:
        kind: part of the folder's name.
        checkpoint: the weights.
        source: the file that defines `make`.
        libraries: whose versions count, besides torch's and transformers'.
        make: fills a folder that does not exist yet.
        more: other values that count.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in [*sorted(checkpoint.glob("*.safetensors")), checkpoint / "config.json"]:
        digest.update(file.read_bytes())
    used = {name: version(name) for name in ("torch", "transformers", *libraries)}
    digest.update(repr((used, more)).encode())
    return saved_once(f"{checkpoint.name}-{kind}-{digest.hexdigest()[:12]}", source, make)
