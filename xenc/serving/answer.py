"""Logits -> what the caller of `predict` asked for: activation, softmax, and the type of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one call of `predict` asked for.

    Attributes:
        activation_fn: applied to the logits.
        apply_softmax: whether scores of several labels are made to sum to 1.
        num_labels: of the model; the dimension of a single label is dropped.
        single: whether one pair was given, rather than a list.
        tensor: return one tensor.
        array: else one numpy array; otherwise a list of tensors.
        one_by_one: apply the activation to each pair's logits separately, for batch-invariant scores: a
            vectorised sigmoid may round the last elements of a tensor differently.
    """

    activation_fn: Any
    apply_softmax: bool
    num_labels: int
    single: bool
    tensor: bool
    array: bool
    one_by_one: bool = False

    @torch.inference_mode()
    def of(self, logits: Tensor) -> Any:
        """The result of `predict` for logits [N, C]."""
        parts = torch.split(logits, 1) if self.one_by_one else [logits]
        scores: Any = torch.cat([self.activation_fn(part) for part in parts])
        if self.num_labels == 1 and scores.ndim > 1:
            scores = scores.squeeze(-1)
        elif self.apply_softmax and scores.ndim > 1:
            scores = torch.softmax(scores, dim=1)
        if self.array and not self.tensor:
            scores = scores.float().cpu().numpy()
        elif not self.tensor:
            scores = list(scores)
        return scores[0] if self.single else scores
