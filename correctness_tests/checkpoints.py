"""Small seeded checkpoints beside those of `perf_tests.models`: other architectures, other heads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from perf_tests import models, workloads

PAIRS = [
    ("How does Python look up names?", "Names are bound by the following constructs."),
    ("", ""),
    ("question", ""),
    ("", "document"),
    *[("a", "b " * words) for words in (1, 12, 60, 61, 200)],
]
"""From no tokens to more than a small model reads."""

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_labels": 1,
    "initializer_range": 0.2,
}

_AFTER_PADDING = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 66}

_CAUSAL = {
    "pad_token_id": 0,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_hidden_layers": 2,  # in the last layer the last token attends to all tokens before it anyway
    "max_position_embeddings": 64,
}

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "bert": {"max_position_embeddings": 64},
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64},
    "electra": {"embedding_size": 32, "max_position_embeddings": 64},
    "deberta-v2": {
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "max_position_embeddings": 64,
    },
    "modernbert": {
        "pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
        "global_attn_every_n_layers": 1, "max_position_embeddings": 64,
    },
    "roberta": {**_AFTER_PADDING, "type_vocab_size": 1},
    "camembert": {**_AFTER_PADDING, "type_vocab_size": 1},
    "xlm-roberta": {**_AFTER_PADDING, "type_vocab_size": 1},
    "mpnet": {**_AFTER_PADDING},
    "eurobert": {
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4, "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    },
    **(
        {"gte": {**_AFTER_PADDING, "type_vocab_size": 1}}
        if hasattr(transformers, "GteModel")
        else {}  # before transformers 5.23
    ),
    **dict.fromkeys(("qwen2", "qwen3", "llama", "mistral", "gemma"), _CAUSAL),
    **{
        family: {**_CAUSAL, "sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}
        for family in ("gemma2", "gemma3_text")
    },
}  # fmt: skip
"""64 tokens each, for which the position tables of RoBERTa's descendants have 66 rows."""

T5: Mapping[str, Any] = {
    "num_hidden_layers": None, "num_attention_heads": None, "hidden_size": None, "initializer_range": None,
    "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "pad_token_id": 0,
    "eos_token_id": 3, "decoder_start_token_id": 0, "max_position_embeddings": 64,
}  # fmt: skip
"""An encoder-decoder whose classifier pools at <eos>."""

BART: Mapping[str, Any] = {
    "num_hidden_layers": None, "num_attention_heads": None, "hidden_size": None, "initializer_range": None,
    "intermediate_size": None, "init_std": 0.2, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "decoder_start_token_id": 3,
    "forced_eos_token_id": None, "max_position_embeddings": 64,
}  # fmt: skip
"""Another encoder-decoder whose classifier pools at <eos>."""

VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "electra-small": ("electra", {"embedding_size": 16, "num_hidden_layers": 2}),
    "modernbert-mean": ("modernbert", {"classifier_pooling": "mean"}),
    "eurobert-mean": ("eurobert", {"classifier_pooling": "mean"}),
    "eurobert-bos": ("eurobert", {"classifier_pooling": "bos"}),
    "deberta-v3": (
        "deberta-v2",
        {
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "type_vocab_size": 0,
            "pooler_hidden_size": 32,
            "num_hidden_layers": 2,
            "max_relative_positions": -1,
        },
    ),
    "deberta-v2-c2p": ("deberta-v2", {"pos_att_type": ["c2p"], "max_relative_positions": 16}),
    "deberta-v2-p2c": ("deberta-v2", {"pos_att_type": ["p2c"], "position_biased_input": True}),
    "deberta-v2-absolute": ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    "deberta-v2-convolution": ("deberta-v2", {"conv_kernel_size": 3, "conv_act": "gelu"}),
    "gemma2-capped": ("gemma2", {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 8}),
    "mistral-windows": ("mistral", {"sliding_window": 5}),
    "modernbert-windows": (
        "modernbert",
        {"local_attention": 8, "global_attn_every_n_layers": 3, "num_hidden_layers": 4},
    ),
    "qwen3-windows": ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
}
"""Architectures in other settings. Windows are much smaller than 64 tokens, and only in some layers."""


def make(directory: Path, architecture: str, *, seed: int = 0, **changes: Any) -> Path:
    """A seeded checkpoint of few layers whose logits have unit spread, with a tokenizer of its family."""
    torch.manual_seed(seed)
    architecture, variation = VARIANTS.get(architecture, (architecture, {}))
    settings = {**_SMALL, **ARCHITECTURES.get(architecture, {}), **variation, **changes}
    tokenizer = _unigram() if settings.get("pad_token_id") == 1 else _wordpiece()
    positions = settings.get("max_position_embeddings", 64) - 2 * (settings.get("pad_token_id") == 1)
    tokenizer.model_max_length = settings.pop("model_max_length", positions)
    settings = {name: value for name, value in settings.items() if value is not None}
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **settings)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    _spread(model, tokenizer)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _wordpiece() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(models.tiny_bert())


def _unigram() -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, processors, trainers
    from tokenizers import models as kinds

    tokenizer = Tokenizer(kinds.Unigram())
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=1000, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(workloads.sentences()[:300], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


@torch.no_grad()
def _spread(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Scale the head: a random head scores all pairs alike, and then every tolerance passes."""
    pairs = workloads.seed(pairs=24, batch_size=8).round(-1)
    queries, documents = [query[:60] for query, _ in pairs], [document[:120] for _, document in pairs]
    encoded = tokenizer(queries, documents, truncation=True, padding=True, return_tensors="pt")
    linears = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    head = next(linear for linear in linears if linear.out_features == model.config.num_labels)
    head.weight.div_(model(**encoded).logits.std(dim=0).mean())
