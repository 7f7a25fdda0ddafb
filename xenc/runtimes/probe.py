"""Whether a session answers as the model does: asked once, on a small batch of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..collate import PaddedBatch
from ..errors import ModelError
from ..forward import classify
from .runtime import Session

TOLERANCE: Final = {torch.float32: 1e-3}
"""By dtype, of the largest logit or of 1; what differs by more is another function, not another rounding."""

LOWER_PRECISION: Final = 0.1


def probe(
    model: PreTrainedModel,
    session: Session,
    *,
    token_types: bool,
    function: Callable[..., Tensor] = classify,
) -> None:
    """Compare a session with the forward pass that it was exported from.

    Raises:
        ModelError: it answers otherwise.
    """
    batch = _batch(model, token_types=token_types)
    expected = function(model, batch.input_ids, batch.attention_mask, batch.token_type_ids).float()
    error = (session(batch) - expected).abs().max().item()
    tolerated = TOLERANCE.get(model.dtype, LOWER_PRECISION) * max(1.0, expected.abs().max().item())
    if not error <= tolerated:  # so that NaN is noticed
        raise ModelError(
            f"{type(model).__name__} answers otherwise once it is exported to ONNX: by {error:.1e} on logits "
            f"up to {expected.abs().max().item():.1e}. Use runtime='torch'."
        )


def _batch(model: PreTrainedModel, *, token_types: bool) -> PaddedBatch:
    """Three rows of 11, 6 and 1 tokens; each ends as a text does, for models that look for its end."""
    config = model.config.get_text_config()
    counts = torch.tensor([[11], [6], [1]])
    place = torch.arange(11).expand(3, 11)
    ids = (place * 7 + counts) % config.vocab_size
    end = config.eos_token_id
    if isinstance(end, int):
        ids = torch.where(place == counts - 1, end, torch.where(ids == end, 0, ids))
    types = (place > counts // 2).long() if token_types else None
    return PaddedBatch(
        input_ids=ids.to(model.device),
        attention_mask=(place < counts).long().to(model.device),
        token_type_ids=None if types is None else types.to(model.device),
    )
