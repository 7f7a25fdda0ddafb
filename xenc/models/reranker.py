"""The present state of a sentence-transformers CrossEncoder, as far as its scores depend on it.

Users change models after loading: they move them, replace tokenizers, set another max_length, add modules.
Each call therefore reads the state once, and compares it with the state that its pipeline was made for.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.util import batch_to_device
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ModelError
from ..text.prompts import FirstStep, FirstStepIds
from ..text.readers import ChatReader, FirstStepReader, Reader
from ..text.tokens import PairReader
from .attention import attention_of_somebody
from .chain import Chain, chain_of
from .changes import Look
from .families import Packable, packable
from .first_step import FirstStepScorer, first_step_scorer
from .positions import resolve_max_length, unnumbered_id


@dataclass(frozen=True, kw_only=True, eq=False)
class Reranker:
    """A model that the fast path can run.

    Attributes:
        model: transformers' model, on its device.
        tokenizer: the model's.
        max_length: the maximum number of tokens of a pair that the model has positions for.
        asked_length: the maximum that sentence-transformers cuts pairs to; None if it does not cut them. No
            more than max_length by default.
        packing: how the model runs on packed batches, or why it cannot.
        look: what was found of its modules.
        chain: the modules behind an encoder, of a model of several; else None.
        targets: for a causal reranker, the token ids whose logits are compared, the relevant one first; else
            (). A causal reranker only runs packed, where one token of each pair goes through the vocabulary.
        first_step: what a T5 reranker is asked; None for others.
        first_step_ids: the same in token ids.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    packing: Packable | str
    look: Look | None = None
    asked_length: int | None = 0
    chain: Chain | None = None
    targets: tuple[int, ...] = ()
    first_step: FirstStep | None = None
    first_step_ids: FirstStepIds | None = None

    @property
    def has_too_few_positions(self) -> bool:
        """Whether sentence-transformers would hand the model longer pairs than it has positions for."""
        return self.asked_length is None or self.asked_length > self.max_length

    @property
    def graph_key(self) -> tuple[object, ...]:
        """Changes if graphs and collators have to be made again, as they do if the modules change."""
        model, tokenizer = self.model, self.tokenizer
        backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        joining = None if backend is None else backend.post_processor
        return (
            model.device, model.dtype, self.packing, self.chain, self.targets, self.first_step_ids,
            model.config.get_text_config().pad_token_id, tokenizer.pad_token_id, unnumbered_id(model),
            tuple(tokenizer.model_input_names), None if joining is None else joining.__getstate__(),
        )  # fmt: skip


def current_reranker(cross_encoder: Any, look: Look) -> Reranker | str:
    """The state of a CrossEncoder, or why sentence-transformers' own predict has to score.

    Args:
        cross_encoder: a CrossEncoder.
        look: a look at its modules that holds.

    Raises:
        ModelError: a max_length that no pair fits, or none for a T5 that needs one.
    """
    if look.attached is not None:
        return look.attached
    scorer, model = first_step_scorer(cross_encoder), look.model
    packing: Packable | str = "no model of transformers"
    chain = chain_of(cross_encoder)
    if isinstance(model, PreTrainedModel):
        packing = packable(model, lambda _: look.last_layer_is_unmodified, chain)
    log_odds = _log_odds(cross_encoder, packing)
    known_head = log_odds is not None or scorer is not None
    slow = _why_slow(cross_encoder, look, packing, chain, known_head=known_head)
    if slow is not None:
        return slow
    targets = () if log_odds is None else (log_odds.true_token_id, log_odds.false_token_id)
    tokenizer = cross_encoder.tokenizer
    fixed = tokenizer.num_special_tokens_to_add(pair=True) if scorer is None else scorer.fixed_tokens
    asked = cross_encoder.max_seq_length
    max_length = resolve_max_length(asked, model, at_least=fixed)
    if max_length is None:
        said = f"{model.config.model_type} has no longest input of its own: pass max_length=..."
        if scorer is None:
            return said
        raise ModelError(said)
    return Reranker(
        model=model,
        tokenizer=tokenizer,
        max_length=max_length,
        asked_length=asked,
        packing=packing,
        look=look,
        chain=chain,
        targets=tuple(target for target in targets if target is not None),
        first_step=None if scorer is None else scorer.first_step,
        first_step_ids=None if scorer is None else scorer.ids,
    )


def reader_for(cross_encoder: Any, reranker: Reranker) -> Reader:
    """The reader that tokenizes a CrossEncoder's pairs."""
    if reranker.first_step is not None:
        return FirstStepReader(reranker.first_step, reranker.tokenizer, reranker.max_length)
    if reranker.targets:
        return ChatReader(cross_encoder, reranker.max_length)
    return PairReader(reranker.tokenizer, reranker.max_length)


def own_logits(cross_encoder: Any, model: PreTrainedModel, pair: tuple[str, str]) -> Tensor:
    """Logits [1, C] of one pair by sentence-transformers' own steps, without padding.

    Args:
        cross_encoder: a CrossEncoder, which is not changed.
        model: a copy of its model, which runs instead.
        pair: a query and a document.
    """
    first, *others = dict.fromkeys(cross_encoder)
    first = copy.copy(first)
    own = first._modules.items()
    vars(first)["_modules"] = {
        name: model if part is cross_encoder.transformers_model else part for name, part in own
    }
    features = batch_to_device(cross_encoder.preprocess([pair]), model.device)
    for step in (first, *others):
        features = step.forward(features)
    logits: Tensor = features["scores"]
    return logits.reshape(1, -1)


def _log_odds(cross_encoder: Any, packing: Packable | str) -> LogitScore | None:
    """The module that turns a causal model's logits into a score, if there is one that packing supports."""
    if len(cross_encoder) != 2 or not isinstance(cross_encoder[1], LogitScore):
        return None
    causal = isinstance(packing, Packable) and packing.head == "vocabulary"
    return cross_encoder[1] if causal and cross_encoder[1].module_input_name == "causal_logits" else None


def _why_slow(
    cross_encoder: Any, look: Look, packing: Packable | str, chain: Chain | None, *, known_head: bool
) -> str | None:
    first, model = cross_encoder[0], look.model
    reads_last = known_head or (isinstance(packing, Packable) and packing.pooling == "last")
    side = getattr(cross_encoder.tokenizer, "padding_side", None)  # an image processor has none
    changed = _changed(look, packing) if isinstance(packing, Packable) else None
    task = str(getattr(first, "transformer_task", None))
    known_task = "sequence-classification" if chain is None else "feature-extraction"
    attention = attention_of_somebody(look.configs)
    reasons = (
        (f"the {cross_encoder.backend} backend", cross_encoder.backend != "torch"),
        ("placement by a device map", bool(getattr(model, "hf_device_map", None))),
        ("processing arguments saved with the model", bool(getattr(first, "processing_kwargs", None))),
        (f"{type(first).__name__} as first module", type(first) not in (Transformer, FirstStepScorer)),
        ("several modules of another kind", len(cross_encoder) != 1 and chain is None and not known_head),
        (
            "a layer behind the pooling that may read its neighbours",
            chain is not None and not look.rows_alone,
        ),
        ("another output of the model than the usual one", not _has_usual_output(first, task)),
        ("rotary positions that grow with the longest text", look.rotations_grow),
        ("a head other than sequence classification", task != known_task and not known_head),
        ("a chat template", "message" in getattr(first, "modality_config", {}) and not known_head),
        (f"somebody's attention ({attention})", attention is not None),
        ("a tokenizer that pads on the left, which moves positions", side == "left" and not reads_last),
        (f"{changed}, which somebody changed", changed is not None),
    )
    return next((reason for reason, holds in reasons if holds), None)


_USUAL_OUTPUTS: Final = {
    "sequence-classification": ("logits", "scores"),
    "feature-extraction": ("last_hidden_state", "token_embeddings"),
    "text-generation": ("logits", "causal_logits"),
}
"""What sentence-transformers reads of a model's output, and what it calls that, by task."""


def _has_usual_output(first: Any, task: str) -> bool:
    if type(first) is not Transformer or task not in _USUAL_OUTPUTS:
        return True
    read, name = _USUAL_OUTPUTS[task]
    text = getattr(first, "modality_config", {}).get("text", {})
    usual = (text.get("method", "forward"), text.get("method_output_name", read)) == ("forward", read)
    return usual and getattr(first, "module_output_name", name) == name


def _changed(look: Look, packing: Packable) -> str | None:
    """What decides which tokens a packed pass sees or where, and is not as transformers makes it."""
    decided = {
        "is_causal of a layer": (packing.pooling != "last") not in look.causal,
        "a sliding window": look.windows_as_configured,
        "position ids": look.positions_count,
    }
    return next((what for what, as_made in decided.items() if not as_made), None)
