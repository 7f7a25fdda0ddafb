"""A small causal reranker: Qwen3's architecture, seeded weights, a chat template around two texts."""

from __future__ import annotations

from pathlib import Path

import sentence_transformers
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from perf_tests import models

TRUE_TOKEN, FALSE_TOKEN = 10, 11

MAX_LENGTH = 512

TEMPLATE = (
    "{% for message in messages %}[CLS] {{ message['role'] }} {{ message['content'] }} [SEP] {% endfor %}"
    "[CLS] assistant"
)


def small_causal() -> Path:
    """4 layers x 256, 8 heads of 32 that share 4 keys and values, 512 positions; 3.7M weights in products."""
    return models.saved_once("small-causal", Path(__file__), _save)


def _save(directory: Path) -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(models.tiny_bert())
    tokenizer.chat_template, tokenizer.model_max_length = TEMPLATE, MAX_LENGTH
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=256, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, intermediate_size=1024, max_position_embeddings=MAX_LENGTH,
        initializer_range=0.08, pad_token_id=0, bos_token_id=2, eos_token_id=3, tie_word_embeddings=True,
    )  # fmt: skip
    save_reranker(directory, Qwen3ForCausalLM(config), tokenizer, TRUE_TOKEN, FALSE_TOKEN)


def save_reranker(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, true_token_id: int,
    false_token_id: int | None,
) -> None:  # fmt: skip
    """A causal reranker, saved as sentence-transformers saves one."""
    language_model = directory / "language-model"
    model.save_pretrained(language_model)
    tokenizer.save_pretrained(language_model)
    modules = [
        Transformer(str(language_model), transformer_task="text-generation"),
        LogitScore(true_token_id=true_token_id, false_token_id=false_token_id),
    ]
    sentence_transformers.CrossEncoder(modules=modules, device="cpu").save_pretrained(str(directory))
