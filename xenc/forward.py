"""A transformers model -> the logits of a batch: the one function that gets compiled.

Shapes: B = rows, L = padded length, C = labels (1 for a reranker).
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel


def classify(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None
) -> Tensor:
    """Logits of one padded batch.

    Args:
        model: a sequence-classification model.
        input_ids: int64 [B, L].
        attention_mask: int64 [B, L], 1 on the tokens to attend to.
        token_type_ids: int64 [B, L] or None.

    Returns:
        [B, C], in the model's dtype.
    """
    if token_type_ids is None:
        output = model(input_ids=input_ids, attention_mask=attention_mask)
    else:
        output = model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
    logits: Tensor = output.logits
    return logits
