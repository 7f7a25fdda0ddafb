"""Small seeded T5 rerankers that answer with a word, and their tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors, trainers
from tokenizers import models as kinds
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perf_tests import workloads

PROMPT = ("Query: ", " Document: ", " Relevant:")
WORDS = ("true", "false", "relevant", "irrelevant", "yes", "no")
MAX_LENGTH = 64


def tokenizer() -> PreTrainedTokenizerBase:
    """Like T5's: <pad> is 0, </s> is 1 and ends every text, each word is tokenized by itself."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    made.model_max_length = MAX_LENGTH
    return made


@cache
def _trained() -> str:
    backend = Tokenizer(kinds.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(workloads.sentences()[:300], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    stored = json.loads(backend.to_str())
    vocabulary = stored["model"]["vocab"]
    known = {piece for piece, _ in vocabulary}
    vocabulary += [[f"▁{word}", -1.0] for word in WORDS if f"▁{word}" not in known]
    return json.dumps(stored)


@torch.no_grad()
def make(directory: Path, family: str = "t5", **changes: Any) -> Path:
    """A checkpoint whose log-odds of each two WORDS have unit spread."""
    torch.manual_seed(0)
    words = tokenizer()
    settings = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, **changes}
    config = AutoConfig.for_model(family, vocab_size=len(words), decoder_start_token_id=0, **settings)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        if "relative_attention_bias" in name or "EncDecAttention.q" in name:
            weight.mul_(5)  # else the decoder hardly tells one document from another
    targets = [words.get_vocab()[f"▁{word}"] for word in WORDS]
    rows = model.lm_head.weight.data
    drawn = _logits(model, words)[:, targets]
    for at in range(0, len(targets), 2):
        rows[targets[at : at + 2]] /= (drawn[:, at] - drawn[:, at + 1]).std()
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def _logits(model: torch.nn.Module, words: PreTrainedTokenizerBase) -> torch.Tensor:
    pairs = workloads.seed(pairs=24, batch_size=8).round(-1)
    rows = [prompt_ids(words, query[:40], document[:120], MAX_LENGTH) for query, document in pairs]
    return torch.stack([first_step_logits(model, row, [0]) for row in rows])


def prompt_ids(
    words: PreTrainedTokenizerBase, query: str, document: str, max_length: int, prompt: Sequence[str] = PROMPT
) -> list[int]:
    """A prompt's ids part by part, which is exact where each word is tokenized by itself."""
    parts = [prompt[0], query, prompt[1], document, prompt[2]]
    ids = [words(part, add_special_tokens=False, verbose=False)["input_ids"] for part in parts]
    others = sum(map(len, ids)) - len(ids[3]) + 1
    ids[3] = ids[3][: max(0, max_length - others)]
    ids[1] = ids[1][: max_length - (others - len(ids[1]))] if others > max_length else ids[1]
    return [*(token for part in ids for token in part), 1]


@torch.no_grad()
def first_step_logits(model: Any, ids: list[int], decoder_ids: list[int]) -> torch.Tensor:
    """[vocabulary]: plain transformers on one unpadded prompt."""
    return model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([decoder_ids])).logits[0, -1]
