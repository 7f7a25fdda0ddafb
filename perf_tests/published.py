"""Rerankers that people use, by the configurations that their makers published, at any size.

What a configuration says beside sizes is as published: windows, caps, buckets of positions, shared keys,
rotations, poolings, heads. Weights are seeded, vocabularies are the suite's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from perf_tests import models, workloads
from perf_tests.causal_model import FALSE_TOKEN, TEMPLATE, TRUE_TOKEN, save_reranker
from perf_tests.ettin_models import save_chain

MAX_LENGTH: Final = 512


@dataclass(frozen=True)
class Size:
    """What differs between the members of a family.

    Attributes:
        hidden, layers, heads: of the encoder; feed-forwards are four times as wide.
        spread: standard deviation of its weights.
    """

    hidden: int
    layers: int
    heads: int
    spread: float


@dataclass(frozen=True, kw_only=True)
class Published:
    """A family of rerankers.

    Attributes:
        name: what its best-known members are called.
        architecture: transformers' model_type.
        settings: of the configuration.
        head: "classifier"; "chain" of sentence-transformers' modules; "log-odds" of two tokens of a language
            model, or "logit" of one.
        labels: of a classifier.
        layout: that it runs in.
        since: the version of transformers that first has it.
    """

    name: str
    architecture: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: Literal["classifier", "chain", "log-odds", "logit"] = "classifier"
    labels: int = 1
    layout: Literal["packed", "bucketed"] = "packed"
    since: tuple[int, int] = (5, 0)

    @property
    def exists(self) -> bool:
        """Whether this transformers has the architecture."""
        return tuple(map(int, transformers.__version__.split(".")[:2])) >= self.since

    def save(self, folder: Path, size: Size) -> None:
        """Save a seeded model of this family, loadable by sentence-transformers."""
        torch.manual_seed(0)
        after_padding = self.settings.get("pad_token_id") == 1
        tokenizer = models._unigram_tokenizer() if after_padding else models._wordpiece_tokenizer(MAX_LENGTH)
        config = AutoConfig.for_model(
            self.architecture, vocab_size=len(tokenizer), **self._sizes(size), **self.settings
        )
        if self.head in ("log-odds", "logit"):
            tokenizer.chat_template = TEMPLATE
            model = AutoModelForCausalLM.from_config(config)
            other = FALSE_TOKEN if self.head == "log-odds" else None
            save_reranker(folder, model, tokenizer, TRUE_TOKEN, other)
            return
        config.num_labels = self.labels
        model = AutoModelForSequenceClassification.from_config(config).eval()
        _spread(model, tokenizer)
        classifier = folder / "classifier" if self.head == "chain" else folder
        model.save_pretrained(classifier)
        tokenizer.save_pretrained(classifier)
        if self.head == "chain":
            save_chain(model, folder)

    def _sizes(self, size: Size) -> dict[str, Any]:
        sizes: dict[str, Any] = {
            "hidden_size": size.hidden, "num_hidden_layers": size.layers, "num_attention_heads": size.heads,
            "intermediate_size": 4 * size.hidden, "initializer_range": size.spread,
        }  # fmt: skip
        if "num_key_value_heads" in self.settings:  # some query heads share one
            sizes["head_dim"] = size.hidden // size.heads
        named = {
            "pooler_hidden_size": size.hidden, "embedding_size": size.hidden,
            "query_pre_attn_scalar": size.hidden // size.heads,
        }  # fmt: skip
        return sizes | {
            name: value for name, value in named.items() if name in _SIZED.get(self.architecture, ())
        }


_SIZED: Final = {
    "deberta-v2": ("pooler_hidden_size",), "electra": ("embedding_size",),
    "gemma2": ("query_pre_attn_scalar",), "gemma3_text": ("query_pre_attn_scalar",),
}  # fmt: skip
"""Further sizes that an architecture has."""

_ROBERTA: Final = {
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    "max_position_embeddings": 514,
}  # fmt: skip
_MODERNBERT: Final = {
    "pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
    "local_attention": 128, "global_attn_every_n_layers": 3, "max_position_embeddings": 8192,
}  # fmt: skip
_CAUSAL: Final = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
_DEBERTA_V3: Final = {
    "pad_token_id": 0, "relative_attention": True, "position_buckets": 256, "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "norm_rel_ebd": "layer_norm",
    "position_biased_input": False, "type_vocab_size": 0, "layer_norm_eps": 1e-7, "pooler_hidden_act": "gelu",
    "max_position_embeddings": 512,
}  # fmt: skip
_QWEN: Final = {
    **_CAUSAL, "num_key_value_heads": 2, "max_position_embeddings": 40_960, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}  # fmt: skip
_LLAMA_3: Final = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
_GEMMA: Final = {
    **_CAUSAL, "num_key_value_heads": 1, "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True, "max_position_embeddings": 8192,
}  # fmt: skip

PUBLISHED: Final = (
    Published(name="ms-marco-MiniLM, TinyBERT", architecture="bert", settings={"pad_token_id": 0}),
    Published(name="ms-marco-electra-base", architecture="electra", settings={"pad_token_id": 0}),
    Published(name="bge-reranker-base, -large, -v2-m3", architecture="xlm-roberta", settings=_ROBERTA),
    Published(
        name="gte-multilingual-reranker-base", architecture="gte", since=(5, 23),
        settings={**_ROBERTA, "layer_norm_eps": 1e-12, "max_position_embeddings": 8192},
    ),
    Published(name="granite-reranker-english-r2", architecture="modernbert", settings=_MODERNBERT),
    Published(
        name="gte-reranker-modernbert-base", architecture="modernbert",
        settings={**_MODERNBERT, "classifier_pooling": "mean"},
    ),
    Published(
        name="ettin-reranker-17m to -1b", architecture="modernbert", settings=_MODERNBERT, head="chain"
    ),
    Published(name="mxbai-rerank-*-v1", architecture="deberta-v2", settings=_DEBERTA_V3),
    Published(name="nli-deberta-v3-*", architecture="deberta-v2", settings=_DEBERTA_V3, labels=3),
    Published(
        name="MPNet cross-encoders", architecture="mpnet",
        settings={**_ROBERTA, "relative_attention_num_buckets": 32},
    ),
    Published(
        name="EuroBERT cross-encoders", architecture="eurobert",
        settings={
            **_CAUSAL, "mask_token_id": 1, "num_key_value_heads": 2, "max_position_embeddings": 8192
        },
    ),
    Published(name="mxbai-rerank-*-v2", architecture="qwen2", settings=_QWEN, head="log-odds"),
    Published(name="Qwen3-Reranker-*", architecture="qwen3", settings=_QWEN, head="log-odds"),
    Published(name="zerank-1, zerank-2", architecture="qwen3", settings=_QWEN, head="logit"),
    Published(name="bge-reranker-v2-gemma", architecture="gemma", settings=_GEMMA, head="logit"),
    Published(
        name="Gemma 2 classifiers", architecture="gemma2",
        settings={
            **_GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 128
        },
    ),
    Published(
        name="Gemma 3 classifiers", architecture="gemma3_text",
        settings={**_GEMMA, "sliding_window": 128, "sliding_window_pattern": 6},
    ),
    Published(
        name="Llama 3 classifiers", architecture="llama",
        settings={
            **_CAUSAL, "num_key_value_heads": 2, "max_position_embeddings": 131_072,
            "rope_parameters": _LLAMA_3,
        },
    ),
    Published(
        name="Qwen3.5 classifiers", architecture="qwen3_5_text", layout="bucketed",
        settings={
            **_CAUSAL, "num_key_value_heads": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        },
    ),
)  # fmt: skip
"""Windows of thousands of tokens are 128 here, so that texts of 512 tokens see them."""


@torch.no_grad()
def _spread(model: Any, tokenizer: Any) -> None:
    """Scale the head until the logits of real pairs have unit spread; see `perf_tests.models`."""
    pairs = [
        (query[:60], document[:300]) for query, document in workloads.seed(pairs=24, batch_size=8).round(-1)
    ]
    encoded = (tokenizer(*pair, truncation=True, return_tensors="pt") for pair in pairs)
    logits = torch.cat([model(**tokens).logits for tokens in encoded])
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    head = next(each for each in linear if each.out_features == model.config.num_labels)
    head.weight.div_(logits.std(dim=0).mean())
