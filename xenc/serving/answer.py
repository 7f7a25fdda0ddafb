"""What a caller asked for: the activation, and the form of the scores.

Shapes: N = pairs of the request, C = labels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import Tensor, nn

from ..errors import NonFiniteScoreError

_OF_EACH_NUMBER: Final = (nn.Identity, nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LogSigmoid, nn.Softplus)
"""Activations that give a logit the same score in whatever batch it stands."""


def original_batches(
    cross_encoder: Any, pairs: Sequence[tuple[str, str]], batch_size: int, activation_fn: Any
) -> Sequence[Tensor] | None:
    """The rows of each batch to which sentence-transformers would apply an activation.

    None if that surely makes no difference. An activation may be any function, of the whole batch too.
    """
    if activation_fn is None or type(activation_fn) in _OF_EACH_NUMBER:
        return None
    order = np.argsort([-cross_encoder._input_length(pair) for pair in pairs])
    if cross_encoder._can_flatten_inputs():
        order = cross_encoder._interleave_sorted_indices(order)
    return torch.split(torch.from_numpy(order), int(batch_size))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one call of `predict` asked for.

    Attributes:
        activation_fn: applied to the logits; None for none.
        apply_softmax: whether scores of several labels are made to sum to 1.
        num_labels: of the model; the dimension of a single label is dropped.
        single: whether one pair was given, rather than a list.
        tensor: return one tensor.
        array: else one numpy array; otherwise a list of tensors.
        one_by_one: apply the activation to each pair's logits separately, for batch-invariant scores: a
            vectorised sigmoid may round the last elements of a tensor differently.
        batches: else the rows to which it is applied together; None for all at once.
        refuse_nan: whether NaN logits are an error, except for an evaluator.
    """

    activation_fn: Any
    apply_softmax: bool
    num_labels: int
    single: bool
    tensor: bool
    array: bool
    one_by_one: bool = False
    batches: Sequence[Tensor] | None = None
    refuse_nan: bool = True

    @torch.inference_mode()
    def of(self, logits: Tensor) -> Any:
        """The result of `predict` for logits [N, C].

        Raises:
            NonFiniteScoreError: NaN logits; the message says for which pairs.
        """
        if self.refuse_nan:
            _check_finite(logits)
        scores: Any = logits if self.activation_fn is None else self._activated(logits)
        if self.num_labels == 1 and scores.ndim > 1:
            scores = scores.squeeze(-1)
        elif self.apply_softmax and scores.ndim > 1:
            scores = torch.softmax(scores, dim=1)
        if self.array and not self.tensor:
            scores = scores.float().cpu().numpy()
        elif not self.tensor:
            scores = list(scores)
        return scores[0] if self.single else scores

    def _activated(self, logits: Tensor) -> Tensor:
        if self.batches is None or self.one_by_one:
            parts = torch.split(logits, 1) if self.one_by_one else [logits]
            return torch.cat([self.activation_fn(part) for part in parts])
        order = torch.cat(list(self.batches)).to(logits.device)
        scores = torch.cat([self.activation_fn(logits[rows.to(logits.device)]) for rows in self.batches])
        return scores[order.argsort()]


def _check_finite(logits: Tensor) -> None:
    nan_rows = torch.isnan(logits).any(dim=1).nonzero().flatten().tolist()
    if nan_rows and not _asked_by_evaluator():
        raise NonFiniteScoreError(
            f"the model answered NaN for {len(nan_rows)} of {len(logits)} pairs, at indices "
            f"{nan_rows[:20]}: check the model's weights, or score in float32. With model.refuse_nan = False "
            "these scores are NaN, as in sentence-transformers."
        )


def _asked_by_evaluator() -> bool:
    """Whether an evaluator of sentence-transformers asks: it judges a diverged training run by its NaN."""
    frame: Any = sys._getframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), BaseEvaluator):
        frame = frame.f_back
    return frame is not None
