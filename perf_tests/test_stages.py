"""Stages of the road on their own, on the seed workload: what tokenizing, sorting and padding cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from perf_tests.scorers import checkpoint
from perf_tests.workloads import ON_CPU, Workload
from xenc.batching.padded_collate import Collator
from xenc.batching.padded_plan import bucket_lengths, plan_batches
from xenc.gate.exact import compile_counts
from xenc.gate.measuring.rounds import synchronised_seconds, time_rounds
from xenc.text.tokens import TokenizedPairs, tokenize

pytestmark = [pytest.mark.cpu, pytest.mark.slow, pytest.mark.benchmark(timer=synchronised_seconds)]

ROUNDS = 30
SEED: Workload = ON_CPU[0]
MARGIN = 0.4
"""Milliseconds on one core of a shared machine: wide enough that only a changed algorithm shows."""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(checkpoint("cpu"))


@pytest.fixture(scope="module")
def tokens(tokenizer: PreTrainedTokenizerBase) -> TokenizedPairs:
    return tokenize(tokenizer, SEED.round(0), max_length=SEED.max_length)


def measure(benchmark: Any, stage: Any) -> None:
    stage(None)
    timing = time_rounds(benchmark, stage, [None] * ROUNDS)
    benchmark.extra_info.update(
        workload_fingerprint=SEED.fingerprint, margin=MARGIN, **compile_counts(timing.compiles)
    )


def test_tokenize(benchmark: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    pairs = SEED.round(0)
    measure(benchmark, lambda _: tokenize(tokenizer, pairs, max_length=SEED.max_length))


@pytest.mark.parametrize("sort", [False, True], ids=["unsorted", "sorted"])
def test_plan(benchmark: Any, tokens: TokenizedPairs, sort: bool) -> None:
    # 1,024 pairs: the sort that the original protocol timed apart
    counts = (tokens.counts * 32)[:1024]
    buckets = bucket_lengths(16, SEED.max_length)
    measure(benchmark, lambda _: plan_batches(counts, batch_size=64, sort=sort, buckets=buckets))


def test_collate(benchmark: Any, tokenizer: PreTrainedTokenizerBase, tokens: TokenizedPairs) -> None:
    collator = Collator(pad_id=tokenizer.pad_token_id, has_token_types=True, device=torch.device("cpu"))
    buckets = bucket_lengths(16, SEED.max_length)
    plan = plan_batches(tokens.counts, batch_size=SEED.batch_size, sort=True, buckets=buckets)
    batches = [(tokens.of_rows(batch.rows), batch) for batch in plan.batches]
    measure(benchmark, lambda _: [collator.collate(*batch) for batch in batches])
