"""Positions of a model's tokens: where they begin, how many there are, and how long a pair can be."""

from __future__ import annotations

from typing import Any, Final

from transformers import PretrainedConfig

from ..errors import ModelError

# RoBERTa and its descendants number positions from padding_idx + 1: 514 rows are enough for 512 tokens.
_POSITIONS_AFTER_PADDING: Final = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "xmod"}
)


def unnumbered_id(model: Any) -> int | None:
    """The token that takes no position: padding, in RoBERTa and its descendants.

    Their embeddings look for it. The configuration's may have been set later, and MPNet's is always 1.
    """
    config = model.config
    if config.model_type not in _POSITIONS_AFTER_PADDING:
        return None
    embeddings = getattr(getattr(model, "base_model", None), "embeddings", None)
    padding = getattr(embeddings, "padding_idx", config.pad_token_id)
    return 1 if padding is None else int(padding)


_NO_LENGTH: Final = 10**9
"""The model_max_length of a tokenizer without one is larger."""


def position_offset(model: Any) -> int:
    """The position id of a pair's first token."""
    unnumbered = unnumbered_id(model)
    return 0 if unnumbered is None else unnumbered + 1


def _rotated(config: PretrainedConfig) -> bool:
    """Whether positions are angles, which have no end, and are the same whatever the longest text is."""
    rotation = getattr(config, "rope_parameters", None)
    return rotation is not None and "dynamic" not in str(rotation)


def max_positions(model: Any) -> int | None:
    """The number of tokens the model has positions for; None if it uses only relative positions."""
    config = model.config
    table = getattr(config, "max_position_embeddings", None)
    if config.model_type.startswith("deberta") and not getattr(config, "position_biased_input", True):
        return None
    return table - position_offset(model) if isinstance(table, int) and table > 0 else None


def resolve_max_length(requested: int | None, model: Any, *, at_least: int = 1) -> int | None:
    """The maximum number of tokens of a pair: as requested, but no more than the model has positions for.

    Args:
        requested: the tokenizer's model_max_length, which sentence-transformers sets from `max_length`.
        model: the model.
        at_least: the number of tokens of a pair of two empty texts.

    Returns:
        The number; None if neither the request nor the model sets a limit.

    Raises:
        ModelError: a length too short for any pair.
    """
    positions = max_positions(model)
    if requested is None or requested > _NO_LENGTH:
        return positions
    if requested <= 0:
        raise ModelError(f"max_length={requested} must be a positive number of tokens.")
    if requested < at_least:
        raise ModelError(f"max_length={requested} must be at least {at_least} tokens for any pair to fit.")
    return int(requested if positions is None or _rotated(model.config) else min(requested, positions))
