"""The FLOP formula against PyTorch's own counter, and peaks."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    XLMRobertaConfig,
)
from transformers import XLMRobertaForSequenceClassification as XlmRoberta

from xenc.profiling import flops
from xenc.profiling.flops import device_peak, encoder_parameters, gemm_seconds_per_token, workload_flops

SIZES = {
    "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 256, "num_labels": 1,
}  # fmt: skip
BERT = BertForSequenceClassification(BertConfig(**SIZES))


@pytest.mark.parametrize("model", [BERT, XlmRoberta(XLMRobertaConfig(**SIZES))], ids=["bert", "xlm-roberta"])
def test_the_formula_counts_what_pytorch_counts(model):
    tokens, sizes = 48, model.config
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.base_model(torch.full((1, tokens), 5), attn_implementation="eager")
    query_and_behind_attention = 2 * sizes.hidden_size * (2 * sizes.hidden_size + 2 * sizes.intermediate_size)
    attention = 4 * sizes.hidden_size * tokens
    needed = counter.get_total_flops() - (tokens - 1) * (query_and_behind_attention + attention)
    # biases and layer norms are parameters but no matrix products; the pooler runs on one token
    assert workload_flops(model, [tokens]) == pytest.approx(needed, rel=0.03)


def test_what_is_computed_for_all_tokens_is_counted_for_all():
    model = BertForSequenceClassification(BertConfig(**SIZES))
    needed = workload_flops(model, [48])
    model.bert.encoder.layer[-1].register_forward_hook(lambda *_: None)
    per_token = 2 * encoder_parameters(model) + 4 * 3 * 64 * 48
    assert needed < workload_flops(model, [48]) == 48 * per_token


def test_products_that_one_token_passes_are_no_part_of_the_floor(monkeypatch):
    multiplied = []

    def noted(dtype, rows, *sizes):
        return {"torch": lambda: multiplied.append(sizes)}

    monkeypatch.setattr(flops, "ways", noted)
    gemm_seconds_per_token(BERT, repeats=1)
    chosen, passes = 4, 2  # a product's ways run four times before one is chosen
    assert multiplied.count((64, 256)) == chosen + passes * (3 - 1)


def test_flops_add_up_over_pairs_and_grow_faster_than_tokens():
    assert workload_flops(BERT, [10, 20]) == workload_flops(BERT, [10]) + workload_flops(BERT, [20])
    assert workload_flops(BERT, [200]) > 2 * workload_flops(BERT, [100])
    assert workload_flops(BERT, []) == 0


def test_embeddings_and_pooler_are_left_out_and_so_is_a_decoder():
    encoder = sum(parameter.numel() for parameter in BERT.bert.encoder.parameters())
    assert encoder_parameters(BERT) == encoder
    config = {"vocab_size": 5000, "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 128}
    small = Qwen3ForCausalLM(Qwen3Config(**{**config, "vocab_size": 50}))
    assert encoder_parameters(Qwen3ForCausalLM(Qwen3Config(**config))) == encoder_parameters(small)
    config = T5Config(vocab_size=500, d_model=64, d_kv=16, d_ff=256, num_layers=2, num_heads=4)
    per_block = 4 * 64 * 64 + 2 * 64 * 256 + 2 * 64  # attention, feed-forward, two norms
    assert encoder_parameters(T5ForConditionalGeneration(config)) == 2 * per_block + 64


def test_a_measured_peak_says_that_it_was_measured():
    peak = device_peak("cpu", torch.float32)
    assert peak.flops_per_s > 1e8
    assert "2048" in peak.source


def test_a_processors_peak_is_the_fastest_of_all_ways_to_multiply(monkeypatch):
    """Each way's five products and the one before them are timed by a clock of our own."""
    taken = {"slow": [3.0] * 5, "fast": [2.0, 1.0, 2.0, 2.0, 2.0]}
    monkeypatch.setattr(flops, "ways", lambda dtype, *shape: dict.fromkeys(taken, print))
    monkeypatch.setattr(flops, "seconds", lambda runs, rounds: taken)
    peak = device_peak.__wrapped__("cpu", torch.float32)
    assert peak.flops_per_s == 2 * 2048**3
    assert peak.source.endswith("by fast")
