"""Every technique on the same model and pairs: cold start, steady state, error and ranking."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._inductor.utils import fresh_cache

from correctness_tests import oracle
from perf_tests import models, rates, relevance
from perf_tests.configurations import REFERENCE
from perf_tests.ranking import kendall_tau, rank_quality, tau_floor
from perf_tests.scorers import DTYPES, OutputError, Scorer, check_runs_as, output_error
from perf_tests.techniques import ROUNDS, Technique, lacking, techniques, why_not, workload
from perf_tests.workloads import Pair
from xenc import DEFAULT_MODEL, PRESETS, CrossEncoder, Execution, ExecutionError, NotInstalledError
from xenc.gate.exact import compile_counts
from xenc.gate.measure import Timing, synchronised_seconds, time_rounds

RANKED = "precision"
"""The chapter whose techniques compute in another precision."""


@pytest.mark.benchmark(timer=synchronised_seconds)
@pytest.mark.parametrize(("technique", "device"), techniques())
def test_technique(benchmark: Any, technique: Technique, device: str) -> None:
    benchmark.extra_info.update(identity(technique, device))
    reason = why_not(technique, device)
    if reason is None:
        try:
            scorer = cold_start(technique, device)
        except (ExecutionError, NotInstalledError) as error:
            if not technique.not_everywhere:
                raise
            reason = str(error)
    if reason is not None:
        benchmark.extra_info.update(not_measured=reason)
        return
    rounds = [workload(device).round(number) for number in range(ROUNDS)]
    timing = measure(benchmark, scorer, reference(device), rounds)
    benchmark.extra_info.update(
        graphs=scorer.graphs,
        warmup_s=scorer.warmup_s,
        round_tokens=[sum(scorer.model.pipeline.tokenize(pairs).counts) for pairs in rounds],
        reference_seconds=timing.reference_seconds,
        **compile_counts(timing.compiles),
        **answers(scorer, rounds[0], device, technique),
    )
    unranked = relevance.missing()
    if technique.chapter == RANKED and unranked is not None:
        benchmark.extra_info.update(not_ranked=unranked)
    elif technique.chapter == RANKED:
        facts = ranking(technique, device)
        if slack(benchmark.extra_info) < slack(facts):  # the worse of two rankings is judged
            facts = {name: fact for name, fact in facts.items() if not name.startswith("kendall")}
        benchmark.extra_info.update(facts)
    if scorer.wastes:
        benchmark.extra_info.update(waste=statistics.median(scorer.wastes[-ROUNDS:]))


def slack(facts: Mapping[str, float]) -> float:
    """How far Kendall's tau is from what it may not fall below."""
    return facts["kendall_tau"] - facts["kendall_floor"]


def ranking(technique: Technique, device: str) -> dict[str, float]:
    """Whether the default model's scores still rank as well, by people's judgements."""
    judged, model = relevance.arxiv_tags(), Path(DEFAULT_MODEL)
    dtype = technique.dtype or DTYPES[device]
    scorer = Scorer(model=made(technique.execution, device, dtype, model), batch_size=technique.batch_size)
    scored = against_oracle(scorer, judged.pairs, device, technique, model)
    assert scored.error.error <= scored.error.tolerance
    quality = rank_quality(
        scored.logits, scored.exact, judged, tolerance=scored.error.tolerance, plain=scored.plain
    )
    return {"ndcg": quality.ndcg, "ranked_error": scored.error.error, **quality.facts()}


def identity(technique: Technique, device: str) -> dict[str, Any]:
    """What is measured, by the names that reports and baselines use."""
    lack = lacking(technique, device)
    dtype = technique.dtype or DTYPES[device]
    return {
        **rates.identity(technique.name, workload(device), checkpoint(device), dtype),
        "chapter": technique.chapter,
        "when": technique.when if lack is None else f"{technique.when} ({lack})",
    }


def cold_start(technique: Technique, device: str) -> Scorer:
    """The technique warmed up, by a compiler that finds nothing of an earlier run."""
    with fresh_cache():
        model = made(technique.execution, device, technique.dtype or DTYPES[device])
        report = model.warmup(technique.batch_size)
    check_runs_as(model, technique.execution, technique.name)
    compiled = model.pipeline.compiled
    return Scorer(
        model=model,
        batch_size=technique.batch_size,
        graphs=compiled.graphs if compiled is not None else 0,
        warmup_s=report.seconds,
    )


@cache
def reference(device: str) -> Scorer:
    """What speed-ups are over: plain, in the device's usual precision."""
    model = made(PRESETS[REFERENCE], device, DTYPES[device])
    return Scorer(model=model, batch_size=workload(device).batch_size)


def measure(benchmark: Any, scorer: Scorer, beside: Scorer, rounds: list[list[Pair]]) -> Timing:
    """Time the rounds; whatever runs for the first time has run before."""
    for pairs in rounds[:2]:
        scorer.logits(pairs)
        beside.logits(pairs)
    return time_rounds(benchmark, scorer.logits, rounds, reference=beside.logits)


def made(execution: Execution, device: str, dtype: torch.dtype, model: Path | None = None) -> CrossEncoder:
    """A model in an execution; the one that is timed, if none is given."""
    return CrossEncoder(
        str(model or checkpoint(device)), device=device, execution=execution,
        max_length=workload(device).max_length, model_kwargs={"dtype": dtype},
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AgainstOracle:
    """Logits [N] beside the oracle's: in float32, and plain in the same precision if that is a lower one."""

    logits: np.ndarray
    exact: np.ndarray
    plain: np.ndarray | None
    error: OutputError


def against_oracle(
    scorer: Scorer, pairs: Sequence[Pair], device: str, technique: Technique, model: Path
) -> AgainstOracle:
    """What a technique answers on a model, and what it should."""
    logits, most = scorer.logits(pairs), workload(device).max_length
    dtype, quantize = technique.dtype or DTYPES[device], technique.execution.quantize
    lower = dtype != torch.float32 or quantize is not None
    return AgainstOracle(
        logits=logits,
        exact=oracle_logits(model, device, tuple(pairs), most),
        plain=oracle_logits(model, device, tuple(pairs), most, dtype, quantize) if lower else None,
        error=output_error(
            logits, pairs, model=model, device=device, max_length=most, dtype=dtype, quantize=quantize
        ),
    )


def answers(scorer: Scorer, pairs: list[Pair], device: str, technique: Technique) -> dict[str, float]:
    """How far from the float32 oracle, how far it may be, and whether it ranks the pairs alike."""
    scored = against_oracle(scorer, pairs, device, technique, checkpoint(device))
    return {
        "output_error": scored.error.error,
        "output_tolerance": scored.error.tolerance,
        "kendall_tau": kendall_tau(scored.logits, scored.exact),
        "kendall_floor": tau_floor(scored.exact, scored.error.tolerance, scored.plain),
    }


@cache
def oracle_logits(
    model: Path,
    device: str,
    pairs: tuple[Pair, ...],
    max_length: int,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
) -> np.ndarray:
    return oracle.logits(model, pairs, max_length=max_length, device=device, dtype=dtype, quantize=quantize)


@cache
def checkpoint(device: str) -> Path:
    """Two layers compile in seconds, dozens of times; a GPU gets the whole model."""
    return models.minilm_two_layers() if device == "cpu" else models.xlm_roberta_base()
