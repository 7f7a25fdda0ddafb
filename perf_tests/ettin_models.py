"""Rerankers of ModernBERT's architecture, each in the two forms that a cross-encoder is stored in.

Ettin's rerankers are chains of modules of sentence-transformers: the encoder, its first token, a linear layer
with GELU, a norm, and a linear layer to one score. ModernBERT's own classifier computes the same, so the same
weights are also stored as that: one model, which plain transformers can load. The norm of the real chains has
a bias, which is zero here.

Weights are seeded, in bfloat16, with calibrated heads; see `perf_tests.models`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import sentence_transformers
import torch
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from transformers import ModernBertConfig, ModernBertForSequenceClassification
from transformers.initialization import no_init_weights

from perf_tests import models, workloads

GAIN: Final = 1.6
"""Standard deviation of a projection of normed inputs: attention then differs from a plain mean, while
bfloat16 still tells pairs apart."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The sizes of a reranker.

    Attributes:
        name, layers, hidden, intermediate, heads, vocabulary: of the encoder.
        pooling: what the head reads, "cls" or "mean".
        chain: whether it is published as a chain of modules; otherwise as a classifier.
        published: pairs per second that its makers, or those of sentence-transformers, measured; 0 if none.
    """

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int = 50_368
    pooling: str = "cls"
    chain: bool = True
    published: int = 0


GEOMETRIES: Final = (
    Geometry(name="ettin-17m", layers=7, hidden=256, intermediate=384, heads=4, published=7517),
    Geometry(name="ettin-32m", layers=10, hidden=384, intermediate=576, heads=6, published=6602),
    Geometry(name="ettin-68m", layers=19, hidden=512, intermediate=768, heads=8, published=4913),
    Geometry(name="ettin-150m", layers=22, hidden=768, intermediate=1152, heads=12, published=3237),
    Geometry(
        name="gte-modernbert", layers=22, hidden=768, intermediate=1152, heads=12, pooling="mean",
        chain=False, published=1418,
    ),
)  # fmt: skip

REHEARSED: Final = (
    Geometry(name="modernbert-l2", layers=2, hidden=64, intermediate=96, heads=2, vocabulary=8000),
)
"""Two layers, one of which attends in a window."""


class Stored(NamedTuple):
    """The folders of one reranker: as it is published, and as one classifier."""

    published: Path
    classifier: Path


def stored(geometry: Geometry) -> Stored:
    """A reranker's checkpoints, made once."""
    root = models.saved_once(geometry.name, Path(__file__), lambda folder: _save(geometry, folder))
    classifier = root / "classifier"
    return Stored(root / "chain" if geometry.chain else classifier, classifier)


def _save(geometry: Geometry, folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = models._unigram_tokenizer()
    model = _seeded(geometry).eval()
    pairs = workloads.rank_request(batch_size=8).round(0)[:16]
    models._turn(model, model.classifier, tokenizer, pairs)
    models._calibrated(model, model.classifier, tokenizer, pairs)
    model.to(torch.bfloat16)
    for part in (model, tokenizer):
        part.save_pretrained(folder / "classifier")
    if geometry.chain:
        save_chain(model, folder)


@torch.no_grad()
def _seeded(geometry: Geometry) -> Any:
    """A classifier with normal weights: transformers' truncated ones take many seconds."""
    config = ModernBertConfig(
        vocab_size=geometry.vocabulary, num_hidden_layers=geometry.layers, hidden_size=geometry.hidden,
        intermediate_size=geometry.intermediate, num_attention_heads=geometry.heads,
        classifier_pooling=geometry.pooling, num_labels=1, pad_token_id=1, bos_token_id=0, cls_token_id=0,
        eos_token_id=2, sep_token_id=2,
    )  # fmt: skip
    with no_init_weights():
        model = ModernBertForSequenceClassification(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        into_residual = math.sqrt(2 * geometry.layers) if name.endswith("Wo.weight") else 1.0
        parameter.normal_(std=GAIN / math.sqrt(parameter.shape[1]) / into_residual)
    return model


def save_chain(model: Any, folder: Path) -> None:
    """Save the classifier in `folder / "classifier"` as a chain of modules in `folder / "chain"`."""
    hidden, dtype = model.config.hidden_size, model.dtype
    first = Transformer(
        str(folder / "classifier"), transformer_task="feature-extraction", model_kwargs={"dtype": dtype}
    )
    linear = Dense(
        hidden, hidden, bias=False, activation_function=torch.nn.GELU(), init_weight=model.head.dense.weight
    )
    norm = LayerNorm(hidden)
    norm.norm.weight.data.copy_(model.head.norm.weight)
    last = Dense(
        hidden, 1, activation_function=torch.nn.Identity(), module_output_name="scores",
        init_weight=model.classifier.weight, init_bias=model.classifier.bias,
    )  # fmt: skip
    chain = [first, Pooling(hidden, pooling_mode="cls"), linear, norm.to(dtype), last]
    made = sentence_transformers.CrossEncoder(modules=chain, device="cpu")
    made.save_pretrained(str(folder / "chain"), create_model_card=False)
