"""The oracle: one pair at a time, plain transformers, eager attention. Imports nothing of xenc."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

_IN_A_BLOCK: Final = re.compile(r"\.(layer|layers|block)\.\d+\.")


@torch.inference_mode()
def logits(
    checkpoint: Path,
    pairs: Sequence[tuple[str, str]],
    *,
    max_length: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
) -> np.ndarray:
    """Logits of N pairs, each scored alone and unpadded: float32 [N], or [N, C] for C > 1 labels.

    quantize: None, or what torchao quantises the Linear layers of the encoder's blocks to.
    """
    model, tokenizer = _loaded(checkpoint, device, dtype, quantize)
    rows = []
    for query, document in pairs:
        # lists of one: the call for a single pair takes an empty document for no document at all
        encoded = tokenizer(
            [query], [document], truncation="longest_first", max_length=max_length, return_tensors="pt"
        )
        rows.append(model(**encoded.to(device)).logits.float().cpu())
    return torch.cat(rows).squeeze(-1).numpy()


@cache
def _loaded(checkpoint: Path, device: str, dtype: torch.dtype, quantize: str | None):
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, dtype=dtype, attn_implementation="eager"
    )
    model = model.to(device).eval()
    if quantize is not None:
        _quantize(model, quantize)
    return model, AutoTokenizer.from_pretrained(checkpoint)


def _quantize(model: torch.nn.Module, kind: str) -> None:
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int8DynamicActivationInt8WeightConfig,
        PerRow,
        quantize_,
    )

    config = (
        Int8DynamicActivationInt8WeightConfig(version=2, set_inductor_config=False)
        if kind == "int8"
        else Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)
    )
    quantize_(
        model,
        config,
        filter_fn=lambda module, name: type(module) is torch.nn.Linear and bool(_IN_A_BLOCK.search(name)),
    )
