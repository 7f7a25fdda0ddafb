"""Causal rerankers: sentence-transformers' prompts in, the tokens whose log-odds are the score out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sentence_transformers.cross_encoder.modules import LogitScore

from .families import Packable, packable
from .tokens import TokenizedPairs


def log_odds(cross_encoder: Any) -> LogitScore | None:
    """The module that turns a causal model's logits into a score, if that is how this one scores.

    Such a model runs packed or not at all: its vocabulary's logits are needed at one token of each pair.
    """
    if len(cross_encoder) != 2 or not isinstance(cross_encoder[1], LogitScore):
        return None
    traits = packable(cross_encoder.transformers_model)
    plain = cross_encoder[1].module_input_name == "causal_logits"
    fits = isinstance(traits, Packable) and traits.head == "vocabulary" and plain
    return cross_encoder[1] if fits else None


def target_tokens(cross_encoder: Any) -> list[int]:
    """The token ids that a causal reranker compares, the relevant one first; none for any other model."""
    score = log_odds(cross_encoder)
    targets = () if score is None else (score.true_token_id, score.false_token_id)
    return [target for target in targets if target is not None]


def prompted(
    cross_encoder: Any, prompt: str | None, max_length: int
) -> Callable[[Sequence[tuple[str, str]]], TokenizedPairs]:
    """Reads pairs as sentence-transformers' own preprocessing does, chat template included.

    Args:
        cross_encoder: whose.
        prompt: the instruction that goes with the pairs.
        max_length: where pairs are cut.
    """
    return partial(_read, cross_encoder, prompt, max_length)


def _read(
    cross_encoder: Any, prompt: str | None, max_length: int, pairs: Sequence[tuple[str, str]],
) -> TokenizedPairs:  # fmt: skip
    """Whether a row that fills max_length lost tokens cannot be known; it is counted as if it had."""
    features = cross_encoder.preprocess(list(pairs), prompt=prompt)
    padded = zip(features["input_ids"].tolist(), features["attention_mask"].tolist(), strict=True)
    rows = [[token for token, real in zip(*row, strict=True) if real] for row in padded]
    truncated = sum(len(row) >= max_length for row in rows)
    return TokenizedPairs(input_ids=rows, token_type_ids=None, truncated_pairs=truncated)
