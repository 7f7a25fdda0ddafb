"""Seconds of rounds -> rates, and how near they come to a device's limit."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from perf_tests.configurations import REFERENCE
from perf_tests.scorers import checkpoint
from perf_tests.workloads import Pair, Workload
from xenc.profiling.flops import device_peak, workload_flops
from xenc.text.tokens import tokenize


def identity(name: str, workload: Workload, model: Path, dtype: torch.dtype) -> dict[str, Any]:
    """What is measured, by the names that reports and baselines use."""
    return {
        "configuration": name,
        "reference": REFERENCE,
        "workload": workload.name,
        "workload_fingerprint": workload.fingerprint,
        "model": model.name,
        "dtype": str(dtype).removeprefix("torch."),
    }


def rates(
    workload: Workload,
    rounds: Sequence[list[Pair]],
    seconds: Sequence[float],
    device: str,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Medians over a workload's timed rounds, by the same names; empty if nothing was timed."""
    if not seconds:
        return {}
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(device))
    counts = [tokenize(tokenizer, pairs, max_length=workload.max_length).counts for pairs in rounds]
    tokens = [sum(each) for each in counts]
    peak = device_peak(device, dtype)
    flops = [workload_flops(encoder(device, dtype), each) for each in counts]
    return {
        "pairs_per_round": workload.pairs_per_round,
        "round_sizes": tokens,
        "pairs_per_s": _median_rate([len(pairs) for pairs in rounds], seconds),
        "tokens_per_s": _median_rate(tokens, seconds),
        "mfu": _median_rate(flops, seconds) / peak.flops_per_s,
        "peak_source": peak.source,
    }


@cache
def encoder(device: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model that a device is measured with, by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint(device), dtype=dtype)
    return model.to(device)


def _median_rate(counts: Sequence[float], seconds: Sequence[float]) -> float:
    return statistics.median(count / each for count, each in zip(counts, seconds, strict=True))
