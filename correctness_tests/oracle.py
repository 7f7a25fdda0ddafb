"""The oracle: one pair at a time, plain transformers, eager attention. Imports nothing of xenc."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@torch.inference_mode()
def logits(
    checkpoint: Path,
    pairs: Sequence[tuple[str, str]],
    *,
    max_length: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Logits of N pairs, each scored alone and unpadded: float32 [N], or [N, C] for C > 1 labels."""
    model, tokenizer = _loaded(checkpoint, device, dtype)
    rows = []
    for query, document in pairs:
        # lists of one: the call for a single pair takes an empty document for no document at all
        encoded = tokenizer(
            [query], [document], truncation="longest_first", max_length=max_length, return_tensors="pt"
        )
        rows.append(model(**encoded.to(device)).logits.float().cpu())
    return torch.cat(rows).squeeze(-1).numpy()


@cache
def _loaded(checkpoint: Path, device: str, dtype: torch.dtype):
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, dtype=dtype, attn_implementation="eager"
    )
    return model.to(device).eval(), AutoTokenizer.from_pretrained(checkpoint)
