"""What differs between model architectures, as traits and never as code paths."""

from __future__ import annotations

from typing import Final

from transformers import PretrainedConfig

from .errors import ModelError

# RoBERTa and its descendants number positions from padding_idx + 1, so a table of 514 rows seats 512 tokens.
_POSITIONS_AFTER_PADDING: Final = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "xmod"}
)

_NO_LENGTH: Final = 10**9
"""A tokenizer that was given no model_max_length reports a number beyond this."""


def position_offset(config: PretrainedConfig) -> int:
    """The position id of a pair's first token."""
    if config.model_type not in _POSITIONS_AFTER_PADDING:
        return 0
    return (1 if config.pad_token_id is None else int(config.pad_token_id)) + 1


def max_positions(config: PretrainedConfig) -> int | None:
    """The most tokens the model has positions for; None where only relative positions are used."""
    table = getattr(config, "max_position_embeddings", None)
    if config.model_type.startswith("deberta") and not getattr(config, "position_biased_input", True):
        return None
    return table - position_offset(config) if isinstance(table, int) and table > 0 else None


def resolve_max_length(requested: int | None, config: PretrainedConfig, *, at_least: int = 1) -> int:
    """The most tokens a pair may have: as requested, or all the model has positions for.

    Args:
        requested: the tokenizer's model_max_length, which sentence-transformers sets from `max_length`.
        config: the model's.
        at_least: how many special tokens a pair has, even of two empty texts.

    Raises:
        ModelError: a length too short for any pair, too long for the model's positions, or none at all.
    """
    positions = max_positions(config)
    if requested is None or requested > _NO_LENGTH:
        if positions is None:
            raise ModelError(f"{config.model_type} has no longest input of its own: pass max_length=...")
        return positions
    if requested <= 0:
        raise ModelError(f"max_length={requested} must be a positive number of tokens.")
    if requested < at_least:
        raise ModelError(f"max_length={requested} must be at least {at_least} tokens for any pair to fit.")
    if positions is not None and requested > positions:
        raise ModelError(
            f"max_length={requested} is more than the {positions} tokens this {config.model_type} model "
            f"has positions for: pass max_length={positions} or less."
        )
    return int(requested)
