"""T5 rerankers as a sentence-transformers module: prompts in, log-odds at the decoder's first step out."""

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
    """The one module of a T5 reranker.

    sentence-transformers has no such module: it would load the checkpoint as a classifier, whose head is
    drawn at random.

    Args:
        model: a T5ForConditionalGeneration, or an MT5 or UMT5 one.
        tokenizer: the model's; a fast one.
        first_step: what it is asked.

    Raises:
        ModelError: a target that is no token, a tokenizer that cannot say where its tokens stand, a model
            that has no token to begin decoding with.
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
        before, self._first_step = getattr(self, "_first_step", first_step), first_step
        try:
            _ = self.ids  # checks the words now rather than at the first request
        except ModelError:
            self._first_step = before
            raise

    @property
    def ids(self) -> FirstStepIds:
        """What the model is asked, in the ids of the tokenizer that it has now."""
        return first_step_ids(self._first_step, self.tokenizer, _start_id(self.model), self._scale)

    @property
    def num_labels(self) -> int:
        """How many scores a pair has."""
        return self._first_step.scores

    @property
    def max_seq_length(self) -> int:
        """The most tokens a prompt may have."""
        return self.tokenizer.model_max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.tokenizer.model_max_length = value

    @property
    def fixed_tokens(self) -> int:
        """How many tokens a prompt has, even of two empty texts."""
        return self._read([("", "")], None, max_length=int(1e9)).counts[0]

    def _read(self, pairs: Sequence[Any], prompt: str | None, *, max_length: int) -> TokenizedPairs:
        return FirstStepReader(self._first_step, self.tokenizer, max_length).for_request(prompt)(pairs)

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **_: Any
    ) -> dict[str, Tensor | Any]:
        """Pairs -> int64 [B, L] input_ids and attention_mask, padded on the right to the longest."""
        rows = self._read(inputs, prompt, max_length=self.max_seq_length).input_ids
        length = max(map(len, rows), default=0)
        padding = [length - len(row) for row in rows]
        pad_id = self.tokenizer.pad_token_id or 0
        ids = [row + [pad_id] * missing for row, missing in zip(rows, padding, strict=True)]
        real = [[1] * len(row) + [0] * missing for row, missing in zip(rows, padding, strict=True)]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(real)}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds "scores", [B, S]; see `forward.score_first_step`."""
        ids, real = features["input_ids"], features["attention_mask"]
        features["scores"] = score_first_step(
            self.model, ids, real, None, FirstStepTensors(self.ids, self.model)
        )
        return features

    def get_config_dict(self) -> dict[str, Any]:
        """What is stored beside the model's own config."""
        return asdict(self._first_step)

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Model, tokenizer and what is asked, in one folder."""
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
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        first_step: FirstStep | None = None,
        **_: Any,
    ) -> Self:
        """The module of a checkpoint; arguments as those of sentence-transformers' modules.

        Args:
            first_step: what to ask, in place of what is stored with the checkpoint.

        Raises:
            ModelError: another backend than "torch", or a checkpoint that lacks weights.
        """
        if backend != "torch":
            raise ModelError(f"backend={backend!r}: a T5 reranker runs with backend='torch'.")
        found: dict[str, Any] = {
            "subfolder": subfolder, "token": token, "revision": revision,
            "local_files_only": local_files_only,
        }  # fmt: skip
        stored = cls.load_config(model_name_or_path, cache_folder=cache_folder, **found)
        hub = {**found, "cache_dir": cache_folder, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(model_name_or_path, **{**hub, **without_labels(config_kwargs)})
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            model_name_or_path, config=config, output_loading_info=True, **{**hub, **(model_kwargs or {})}
        )
        _refuse_random_weights(model_name_or_path, report)
        wanted = processor_kwargs or {}
        tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, **{**hub, **wanted})
        positions = getattr(config, "n_positions", None)
        if isinstance(positions, int) and "model_max_length" not in wanted:
            tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
        return cls(model, tokenizer, first_step or _restored({**(init_defaults or {}), **stored}))


FIRST_STEP_MODULES: Final = (
    f"{FirstStepScorer.__module__}.{FirstStepScorer.__name__}",
    "xenc.encoder_decoder.scorer.FirstStepScorer",
)
"""What a saved model calls the module: its present name, and the one that version 0.1 saved."""


def without_labels(config_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """What goes to a model's config but the number of labels, which such a model has none of."""
    return {key: value for key, value in (config_kwargs or {}).items() if key != "num_labels"}


def generates(config: PretrainedConfig) -> bool:
    """Whether a checkpoint is a T5 with its vocabulary's head, and neither a classifier nor an encoder.

    A config that names no class counts as one: weights that are not there are refused when it is loaded.
    """
    if config.model_type not in _FAMILIES:
        return False
    return not config.architectures or config.architectures[0].endswith(_GENERATES)


def first_step_scorer(cross_encoder: Any) -> FirstStepScorer | None:
    """The module of a T5 reranker, if that is what a cross-encoder is."""
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
    """JSON knows no tuples."""
    if not stored:
        return None
    fields = {**asdict(FirstStep()), **stored}
    targets = tuple(tuple(pair) for pair in fields["targets"])
    return FirstStep(**{**fields, "targets": targets, "decoder_prefixes": tuple(fields["decoder_prefixes"])})


def _refuse_random_weights(name: str, report: dict[str, Any]) -> None:
    """transformers draws what it does not find at random, and says so in its load report alone."""
    missing = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if missing:
        raise ModelError(
            f"{name!r} lacks weights of {', '.join(missing[:3])} ({len(missing)} in all), which would be "
            "random: give a checkpoint saved from T5ForConditionalGeneration."
        )
