"""Causal rerankers: the log-odds of two tokens after a chat prompt, as sentence-transformers' LogitScore."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import xenc
from correctness_tests import checkpoints
from correctness_tests.checkpoints import PAIRS
from correctness_tests.scoring import assert_close, logits, nothing_compiles, on_cpu
from perf_tests.causal_model import save_reranker
from xenc import ExecutionError

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)


def make(directory: Path, false_token_id: int | None = 11, architecture: str = "qwen3") -> Path:
    """A seeded causal reranker, saved as sentence-transformers saves one."""
    torch.manual_seed(0)
    tokenizer = checkpoints._unigram()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template, tokenizer.model_max_length = TEMPLATE, 128
    config = AutoConfig.for_model(
        architecture, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=64, max_position_embeddings=128,
        initializer_range=0.3, pad_token_id=1, bos_token_id=0, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    save_reranker(directory, AutoModelForCausalLM.from_config(config), tokenizer, 10, false_token_id)
    return directory


@pytest.fixture(scope="module", params=[11, None], ids=["log-odds", "one logit"])
def checkpoint(request, tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("causal"), false_token_id=request.param)


def one_by_one(checkpoint: Path, **kwargs: object) -> np.ndarray:
    """Each pair alone, so that nothing is padded."""
    model = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu")
    return np.array([logits(model, pair, **kwargs) for pair in PAIRS])


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "mistral", "gemma", "gemma2", "gemma3_text"])
def test_other_causal_models_score_as_sentence_transformers_does_one_by_one(tmp_path, architecture):
    checkpoint = make(tmp_path, architecture=architecture)
    expected = one_by_one(checkpoint)
    assert expected.std() > 0.1
    for execution in ("packed-eager", xenc.Execution(share_prefix=True, compile_mode=None)):
        model = on_cpu(checkpoint, execution)
        assert model.execution.layout == "packed"
        assert_close(logits(model, PAIRS), expected)


@pytest.mark.parametrize("prompt", [None, "Judge this: "])
def test_a_causal_reranker_scores_as_sentence_transformers_does_one_by_one(checkpoint, prompt):
    model = on_cpu(checkpoint, "packed-eager")
    scores = logits(model, PAIRS, prompt=prompt)
    assert model.last_report.waste < 1  # it went packed, where sentence-transformers leaves no report
    expected = one_by_one(checkpoint, prompt=prompt)
    assert expected.std() > 0.3
    assert_close(scores, expected)


def test_compiled_it_scores_the_same_and_nothing_compiles(checkpoint):
    model = on_cpu(checkpoint, xenc.Execution(strict=True))
    assert model.warmup().graphs == 1
    with nothing_compiles():
        scores = logits(model, PAIRS)
    assert_close(scores, one_by_one(checkpoint))


def test_no_padded_batch_is_made_of_one(checkpoint):
    with pytest.raises(ExecutionError, match=r"layout='padded': a causal reranker runs packed"):
        on_cpu(checkpoint)
