"""T5 rerankers as a sentence-transformers module: from prompts to log-odds at the decoder's first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, Self

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import ModelError
from ..text.prompts import FirstStep, FirstStepIds, first_step_ids
from ..text.readers import FirstStepReader
from ..text.tokens import TokenizedPairs
from .encoder_decoder import FirstStepTensors, projection_scale, score_first_step

_FAMILIES: Final = frozenset({"t5", "mt5", "umt5"})
_GENERATES: Final = ("ForConditionalGeneration", "WithLMHeadModel")


class FirstStepScorer(InputModule):
    """The only module of a T5 reranker, which sentence-transformers would load as an untrained classifier.

    Args:
        model: a T5ForConditionalGeneration, or an MT5 or UMT5 one.
        tokenizer: the model's; a fast one.
        first_step: what it is asked.

    Raises:
        ModelError: a target that is not one token, a tokenizer without character offsets, or a model without
            a decoder start token.
    """

    config_file_name = "first_step.json"
    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, first_step: FirstStep | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} cannot say which characters a token is made of, which cutting "
                "prompts needs: use a tokenizer with tokenizer.json."
            )
        self.model, self.tokenizer = model, tokenizer
        self._scale = projection_scale(model)
        self.first_step = first_step or FirstStep()

    @property
    def first_step(self) -> FirstStep:
        """What the model is asked."""
        return self._first_step

    @first_step.setter
    def first_step(self, first_step: FirstStep) -> None:
        self._ids_of(first_step)  # raises for words that are not tokens
        self._first_step = first_step

    @property
    def ids(self) -> FirstStepIds:
        """The first step in the present tokenizer's ids."""
        return self._ids_of(self._first_step)

    def _ids_of(self, first_step: FirstStep) -> FirstStepIds:
        return first_step_ids(first_step, self.tokenizer, _start_id(self.model), self._scale)

    @property
    def num_labels(self) -> int:
        """The number of scores of a pair."""
        return self._first_step.scores

    @property
    def max_seq_length(self) -> int:
        """The maximum number of tokens of a prompt."""
        return self.tokenizer.model_max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.tokenizer.model_max_length = value

    @property
    def fixed_tokens(self) -> int:
        """The number of tokens of a prompt with two empty texts."""
        return self._read([("", "")], None, max_length=int(1e9)).counts[0]

    def _read(self, pairs: Sequence[Any], prompt: str | None, *, max_length: int) -> TokenizedPairs:
        return FirstStepReader(self._first_step, self.tokenizer, max_length).for_request(prompt)(pairs)

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **_: Any
    ) -> dict[str, Tensor | Any]:
        """Pairs -> int64 [B, L] input_ids and attention_mask, padded on the right to the longest."""
        rows = self._read(inputs, prompt, max_length=self.max_seq_length).input_ids
        length = max(map(len, rows), default=0)
        pad_id = self.tokenizer.pad_token_id or 0
        ids = [row + [pad_id] * (length - len(row)) for row in rows]
        real = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(real)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds "scores", [B, S]; see `models.encoder_decoder.score_first_step`."""
        ids, real, asked = features["input_ids"], features["attention_mask"], self.ids
        scores = score_first_step(self.model, ids, real, None, FirstStepTensors(asked, self.model))
        return {**features, "scores": scores}

    def get_config_dict(self) -> dict[str, Any]:
        """The first step's fields, which are stored beside the model's own config."""
        return asdict(self._first_step)

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write model, tokenizer and first step into one folder."""
        self.model.save_pretrained(output_path, safe_serialization=safe_serialization)
        self.save_tokenizer(output_path)
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        backend: str = "torch",
        first_step: FirstStep | None = None,
        **loading: Any,
    ) -> Self:
        """The module of a checkpoint; other arguments as for sentence-transformers' modules.

        Args:
            first_step: overrides what is stored with the checkpoint.

        Raises:
            ModelError: a backend other than "torch", or a checkpoint that lacks weights.
        """
        if backend != "torch":
            raise ModelError(f"backend={backend!r}: a T5 reranker runs with backend='torch'.")
        found: dict[str, Any] = {"subfolder": subfolder, "token": token, "revision": revision}
        found["local_files_only"] = local_files_only
        stored = cls.load_config(model_name_or_path, cache_folder=cache_folder, **found)
        trust = loading.get("trust_remote_code", False)
        hub = {**found, "cache_dir": cache_folder, "trust_remote_code": trust}
        of_config = without_labels(loading.get("config_kwargs"))
        of_model, of_tokenizer = loading.get("model_kwargs") or {}, loading.get("processor_kwargs") or {}
        config = AutoConfig.from_pretrained(model_name_or_path, **{**hub, **of_config})
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            model_name_or_path, config=config, output_loading_info=True, **{**hub, **of_model}
        )
        _refuse_random_weights(model_name_or_path, report)
        tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, **{**hub, **of_tokenizer})
        positions = getattr(config, "n_positions", None)
        if isinstance(positions, int) and "model_max_length" not in of_tokenizer:
            tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
        return cls(model, tokenizer, first_step or _restored({**(init_defaults or {}), **stored}))


FIRST_STEP_MODULES: Final = (
    f"{FirstStepScorer.__module__}.{FirstStepScorer.__name__}",
    "xenc.encoder_decoder.scorer.FirstStepScorer",
)
"""The module's names in saved models: its present one, and that of version 0.1."""


def without_labels(config_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """A model's config arguments without the number of labels, which a T5 that generates does not have."""
    return {key: value for key, value in (config_kwargs or {}).items() if key != "num_labels"}


def generates(config: PretrainedConfig) -> bool:
    """Whether a checkpoint is a T5 with a language-model head, not a classifier or an encoder.

    So is one whose config names no class; if weights are missing, loading it raises ModelError.
    """
    if config.model_type not in _FAMILIES:
        return False
    return not config.architectures or config.architectures[0].endswith(_GENERATES)


def first_step_scorer(cross_encoder: Any) -> FirstStepScorer | None:
    """A cross-encoder's module if it is a T5 reranker, else None."""
    one = len(cross_encoder) == 1 and type(cross_encoder[0]) is FirstStepScorer
    return cross_encoder[0] if one else None


def _start_id(model: PreTrainedModel) -> int:
    for config in (model.config, getattr(model, "generation_config", None)):
        start = getattr(config, "decoder_start_token_id", None)
        if isinstance(start, int):
            return start
    raise ModelError(
        f"{type(model).__name__} has no decoder_start_token_id: set it in config.json (T5's is pad_token_id)."
    )


def _restored(stored: dict[str, Any]) -> FirstStep | None:
    """A first step from JSON, which has lists in place of tuples."""
    if not stored:
        return None
    fields = {**asdict(FirstStep()), **stored}
    try:
        fields["targets"] = tuple(tuple(pair) for pair in fields["targets"])
        fields["decoder_prefixes"] = tuple(fields["decoder_prefixes"])
        return FirstStep(**fields)
    except (TypeError, AttributeError) as error:
        raise ModelError(
            f"first_step.json holds no FirstStep ({error}): mend it, or give first_step=."
        ) from error


def _refuse_random_weights(name: str, report: dict[str, Any]) -> None:
    """Transformers initialises missing weights at random, and only mentions it in its load report."""
    missing = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if missing:
        raise ModelError(
            f"{name!r} lacks weights of {', '.join(missing[:3])} ({len(missing)} in all), which would be "
            "random: give a checkpoint saved from T5ForConditionalGeneration."
        )
