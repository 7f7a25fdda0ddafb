"""The claim's own setting, and a small one that rehearses it on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from perf_tests import models, workloads
from perf_tests.ettin_models import GEOMETRIES, REHEARSED, Geometry
from perf_tests.workloads import Workload


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A device and its work.

    Attributes:
        device, dtype: torch's device type, and what all rows compute in unless a row says otherwise.
        checkpoint, workload, rounds: of the table; each row is timed once in each round.
        peer_batch_sizes: of sentence-transformers.
        token_budgets: sizes of packed batches besides the usual one.
        request, few_requests, equal_requests: a query with its documents, and how often it is asked.
        random_requests, most_documents: how many requests of random sizes, and their largest size.
        large, lengths, sequences: the landmark's model, tokens per sequence, and sequences per round.
        geometries: of ModernBERT's rerankers.
        left_out: rows for which the device has no instructions, or which would take needless minutes.
        at_once: processes that are made ready at the same time.
        patience: a stage takes so many times its seconds.
    """

    device: str
    dtype: torch.dtype
    checkpoint: Callable[[], Path]
    workload: Workload
    rounds: int
    peer_batch_sizes: tuple[int, ...]
    token_budgets: tuple[int, ...]
    request: Workload
    few_requests: int
    equal_requests: int
    random_requests: int
    most_documents: int
    large: Callable[[], Path]
    lengths: tuple[int, ...]
    sequences: int
    geometries: tuple[Geometry, ...]
    left_out: tuple[str, ...] = ()
    at_once: int = 12
    patience: float = 1.0


ON_GPU: Final = Setting(
    device="cuda",
    dtype=torch.bfloat16,
    checkpoint=models.xlm_roberta_base,
    workload=workloads.seed(pairs=1024, batch_size=64),
    rounds=7,
    peer_batch_sizes=(64, 128),
    token_budgets=(16_384, 65_536),
    request=workloads.rank_request(batch_size=64),
    few_requests=200,
    equal_requests=2000,
    random_requests=10_000,
    most_documents=32,
    large=models.bert_large,
    lengths=(176, 384),
    sequences=1024,
    geometries=GEOMETRIES,
)

REHEARSAL: Final = Setting(
    device="cpu",
    dtype=torch.float32,
    checkpoint=models.minilm_two_layers,
    workload=workloads.brief(pairs=24, batch_size=8),
    rounds=3,
    peer_batch_sizes=(8, 16),
    token_budgets=(1024,),
    request=workloads.rank_request(batch_size=8),
    few_requests=2,
    equal_requests=3,
    random_requests=10,
    most_documents=4,
    large=models.minilm_two_layers,
    lengths=(48, 64),
    sequences=16,
    geometries=REHEARSED,
    left_out=(
        "packed, max-autotune", "packed-float8", "packed, cuBLASLt", "packed, cuBLASLt, 16,384 tokens",
        "packed, FlashAttention-2 attention",
    ),
    at_once=1,
    patience=3.0,
)  # fmt: skip
"""Proves that every part runs; its numbers mean nothing."""
