"""What is measured on what: the claim's own setting, and a small one that rehearses it on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from perf_tests import models, workloads
from perf_tests.workloads import Workload


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A device and what it is given to do.

    Attributes:
        device: torch's device type.
        dtype: what all rows compute in, unless a row says otherwise.
        checkpoint: makes the model of the table.
        workload: what a round of the table scores.
        rounds: of the table; each row is timed once in each.
        peer_batch_sizes: those of sentence-transformers.
        token_budgets: other sizes of packed batches than the usual one.
        request: a query and its documents, asked again and again.
        equal_requests: how often.
        random_requests: how many requests of random sizes.
        most_documents: of a request of random size.
        large: makes the model of the landmark.
        lengths: fixed numbers of tokens of its sequences.
        sequences: of one of its rounds.
        left_out: rows for which the device has no instructions, or which would take minutes without need.
    """

    device: str
    dtype: torch.dtype
    checkpoint: Callable[[], Path]
    workload: Workload
    rounds: int
    peer_batch_sizes: tuple[int, ...]
    token_budgets: tuple[int, ...]
    request: Workload
    equal_requests: int
    random_requests: int
    most_documents: int
    large: Callable[[], Path]
    lengths: tuple[int, ...]
    sequences: int
    left_out: tuple[str, ...] = ()


ON_GPU: Final = Setting(
    device="cuda",
    dtype=torch.bfloat16,
    checkpoint=models.xlm_roberta_base,
    workload=workloads.seed(pairs=1024, batch_size=64),
    rounds=9,
    peer_batch_sizes=(32, 64, 128, 256),
    token_budgets=(4096, 8192, 32_768, 65_536),
    request=workloads.rank_request(batch_size=64),
    equal_requests=2000,
    random_requests=10_000,
    most_documents=64,
    large=models.bert_large,
    lengths=(176, 384),
    sequences=1024,
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
    equal_requests=3,
    random_requests=10,
    most_documents=4,
    large=models.minilm_two_layers,
    lengths=(48, 64),
    sequences=16,
    left_out=(
        "packed-cudagraphs", "bucketed, CUDA graphs", "packed, max-autotune", "packed-float8",
    ),
)  # fmt: skip
"""Proves that every part runs; its numbers mean nothing."""
