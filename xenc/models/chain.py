"""Cross-encoders made of several modules of sentence-transformers, such as Ettin's.

    Transformer -> Pooling -> any of Dense, LayerNorm, Normalize, Dropout -> "scores"

The encoder runs on a whole batch, the modules behind it on one row for each document. They are called, not
copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
)  # fmt: skip
from torch import Tensor, nn

_BEHIND: Final = (Dense, Dropout, LayerNorm, Normalize)
"""Modules that compute each document's row from that row alone."""

_EMBEDDING: Final = "sentence_embedding"
_SCORES: Final = "scores"


@dataclass(frozen=True)
class Chain:
    """The modules behind an encoder.

    Attributes:
        pooling: reads the encoder's output.
        behind: run on the pooled rows, in order; the last ones write the scores.
    """

    pooling: Pooling
    behind: tuple[nn.Module, ...]

    @property
    def mode(self) -> str | tuple[str, ...]:
        """The name of the pooling, such as "cls"; several are put side by side."""
        mode: str | tuple[str, ...] = self.pooling.pooling_mode
        return mode if isinstance(mode, str) else tuple(mode)

    def scores_of_tokens(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores [B, C] of an encoder's output [B, L, H]; the mask [B, L] is 1 on tokens, int64."""
        pooled = self.pooling({"token_embeddings": hidden, "attention_mask": attention_mask})
        return self.scores_of_rows(pooled[_EMBEDDING])

    def scores_of_rows(self, pooled: Tensor) -> Tensor:
        """Scores [N, C] of pooled rows [N, H]."""
        features: dict[str, Any] = {_EMBEDDING: pooled}
        for module in self.behind:
            features = module(features)
        scores: Tensor = features[_SCORES]
        return scores


def chain_of(modules: Sequence[nn.Module]) -> Chain | None:
    """The chain that follows a Transformer module; None if its scores are not computed in this way.

    Args:
        modules: those of a CrossEncoder, the Transformer first.
    """
    _, *others = dict.fromkeys(modules)  # one that stands in two places runs once
    pooling, behind = others[0] if others else None, tuple(others[1:])
    if not isinstance(pooling, Pooling):
        return None
    plain = type(pooling) is Pooling and pooling.include_prompt
    return Chain(pooling, behind) if plain and _SCORES in _written(behind) else None


def _written(behind: Sequence[nn.Module]) -> set[str]:
    """The features that modules write in turn; none if one of them is of another kind, or reads another."""
    written = {_EMBEDDING}
    for module in behind:
        if type(module) not in _BEHIND or getattr(module, "module_input_name", _EMBEDDING) not in written:
            return set()
        written.add(str(getattr(module, "module_output_name", _EMBEDDING)))
    return written
