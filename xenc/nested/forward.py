"""A transformers model -> the logits of a batch of jagged tensors: what gets compiled.

Shapes: N = documents, j = tokens of each, T = their sum, C = labels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..families import Packable
from ..forward import head_logits


def classify_nested(
    model: PreTrainedModel,
    input_ids: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor | None,
    pooled: Tensor,
    traits: Packable,
) -> Tensor:
    """Logits of one batch of jagged tensors, whose second size j differs from document to document.

    Args:
        model: a model whose attention implementation is `attention.NESTED_ATTENTION`.
        input_ids: int64 [N, j].
        position_ids: int64 [N, j], starting anew in each document.
        token_type_ids: int64 [N, j] or None.
        pooled: int64 [N + 1], where in the T values the token stands that the head reads of each document;
            the last is of no document.
        traits: the family's pooling and head.

    Returns:
        [N + 1, C], in the model's dtype.
    """
    body: Any = model.base_model
    inputs = {"input_ids": input_ids, "position_ids": position_ids}
    if token_type_ids is not None:
        inputs["token_type_ids"] = token_type_ids
    if traits.head == "pooler":  # which slices, as jagged tensors do not; `head_logits` runs it afterwards
        hidden = body.encoder(body.embeddings(**inputs), attention_mask=None).last_hidden_state
    else:
        hidden = body(**inputs).last_hidden_state
    return head_logits(model, hidden.values()[pooled], traits)
