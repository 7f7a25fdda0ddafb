"""Positions of a model's tokens: where they begin, how many there are, and how long a pair can be."""

from __future__ import annotations

from typing import Final

from transformers import PretrainedConfig

from ..errors import ModelError

# RoBERTa and its descendants number positions from padding_idx + 1: 514 rows are enough for 512 tokens.
_POSITIONS_AFTER_PADDING: Final = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "xmod"}
)


def unnumbered_id(config: PretrainedConfig) -> int | None:
    """The token that takes no position: padding, in RoBERTa and its descendants."""
    return position_offset(config) - 1 if config.model_type in _POSITIONS_AFTER_PADDING else None


_NO_LENGTH: Final = 10**9
"""The model_max_length of a tokenizer without one is larger."""


def position_offset(config: PretrainedConfig) -> int:
    """The position id of a pair's first token."""
    if config.model_type not in _POSITIONS_AFTER_PADDING:
        return 0
    return (1 if config.pad_token_id is None else int(config.pad_token_id)) + 1


def _rotated(config: PretrainedConfig) -> bool:
    """Whether positions are angles, which have no end, and are the same whatever the longest text is."""
    rotation = getattr(config, "rope_parameters", None)
    return rotation is not None and "dynamic" not in str(rotation)


def max_positions(config: PretrainedConfig) -> int | None:
    """The number of tokens the model has positions for; None if it uses only relative positions."""
    table = getattr(config, "max_position_embeddings", None)
    if config.model_type.startswith("deberta") and not getattr(config, "position_biased_input", True):
        return None
    return table - position_offset(config) if isinstance(table, int) and table > 0 else None


def resolve_max_length(requested: int | None, config: PretrainedConfig, *, at_least: int = 1) -> int | None:
    """The maximum number of tokens of a pair: as requested, but no more than the model has positions for.

    Args:
        requested: the tokenizer's model_max_length, which sentence-transformers sets from `max_length`.
        config: the model's.
        at_least: the number of tokens of a pair of two empty texts.

    Returns:
        The number; None if neither the request nor the model sets a limit.

    Raises:
        ModelError: a length too short for any pair.
    """
    positions = max_positions(config)
    if requested is None or requested > _NO_LENGTH:
        return positions
    if requested <= 0:
        raise ModelError(f"max_length={requested} must be a positive number of tokens.")
    if requested < at_least:
        raise ModelError(f"max_length={requested} must be at least {at_least} tokens for any pair to fit.")
    return int(requested if positions is None or _rotated(config) else min(requested, positions))
