"""Every technique on the same model and pairs: cold start, steady state, error and ranking."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch._inductor.utils import fresh_cache

from perf_tests import models, msmarco, rates, relevance
from perf_tests.configurations import REFERENCE
from perf_tests.ranking import kendall_tau, rank_quality, tau_floor
from perf_tests.scored import exact
from perf_tests.scorers import DTYPES, OutputError, Scorer, oracle_logits, output_error, warmed_up
from perf_tests.techniques import ROUNDS, Technique, lacking, techniques, why_not, workload
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder, Execution, ExecutionError, NotInstalledError
from xenc.gate.exact import compile_counts
from xenc.gate.measuring.rounds import synchronised_seconds, time_rounds

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
    plain = reference(device)
    for pairs in rounds[:2]:  # what runs for the first time has run before
        scorer.logits(pairs)
        plain.logits(pairs)
    timing = time_rounds(benchmark, scorer.logits, rounds, reference=plain.logits)
    benchmark.extra_info.update(
        graphs=scorer.graphs,
        warmup_s=scorer.warmup_s,
        round_sizes=[sum(scorer.model.pipeline.tokenize(pairs).counts) for pairs in rounds],
        reference_seconds=timing.reference_seconds,
        **compile_counts(timing.compiles),
        **answers(scorer, rounds[0], device, technique),
    )
    unranked = relevance.missing()
    if technique.chapter == RANKED and unranked is not None:
        benchmark.extra_info.update(not_ranked=unranked)
    elif technique.chapter == RANKED:
        benchmark.extra_info.update(ranking(technique, device))  # in place of the timed model's own tau
    if scorer.wastes:
        benchmark.extra_info.update(waste=statistics.median(scorer.wastes[-ROUNDS:]))
    benchmark.extra_info.update(exact=exact(benchmark.extra_info))


def ranking(technique: Technique, device: str) -> dict[str, Any]:
    """Whether a trained model's scores still rank as well, by people's judgements."""
    judged, model = relevance.arxiv_tags(), msmarco.ranker()
    scorer = Scorer(
        model=made(technique.execution, device, dtype_of(technique, device), model),
        batch_size=technique.batch_size,
    )
    scored = against_oracle(scorer, judged.pairs, device, technique, model)
    error, tolerance = scored.error
    assert error <= tolerance
    quality = rank_quality(scored.logits, scored.exact, judged, tolerance=tolerance, plain=scored.plain)
    facts = {"ranked_model": model.name, "ranked_error": error, "ndcg": quality.ndcg}
    return {**facts, **quality.facts()}


def identity(technique: Technique, device: str) -> dict[str, Any]:
    """What is measured, by the names that reports and baselines use."""
    lack = lacking(technique, device)
    dtype = dtype_of(technique, device)
    return {
        **rates.identity(technique.name, workload(device), checkpoint(device), dtype),
        "chapter": technique.chapter,
        "when": technique.when if lack is None else f"{technique.when} ({lack})",
    }


def dtype_of(technique: Technique, device: str) -> torch.dtype:
    return technique.dtype or DTYPES[device]


def cold_start(technique: Technique, device: str) -> Scorer:
    """The technique warmed up, by a compiler that finds nothing of an earlier run."""
    with fresh_cache():
        model = made(technique.execution, device, dtype_of(technique, device))
        return warmed_up(model, technique.execution, technique.name, technique.batch_size)


@cache
def reference(device: str) -> Scorer:
    """What speed-ups are over: plain, in the device's usual precision."""
    model = made(PRESETS[REFERENCE], device, DTYPES[device])
    return Scorer(model=model, batch_size=workload(device).batch_size)


def made(execution: Execution, device: str, dtype: torch.dtype, model: Path | None = None) -> CrossEncoder:
    """A model in an execution; the one that is timed, if none is given."""
    return CrossEncoder(
        str(model or checkpoint(device)), device=device, execution=execution,
        max_length=workload(device).max_length, model_kwargs={"dtype": dtype},
    )  # fmt: skip


class AgainstOracle(NamedTuple):
    """Logits [N] beside the oracle's: in float32, and plain in the same precision if that is a lower one."""

    logits: np.ndarray
    exact: np.ndarray
    plain: np.ndarray | None
    error: OutputError


def against_oracle(
    scorer: Scorer, pairs: Sequence[Pair], device: str, technique: Technique, model: Path
) -> AgainstOracle:
    """A technique's answers on a model, and what they should be."""
    logits, most = scorer.logits(pairs), workload(device).max_length
    precision = dtype_of(technique, device), technique.execution.quantize
    asked = model, device, tuple(pairs), most
    error = output_error(
        logits, pairs, model=model, device=device, max_length=most, dtype=precision[0], quantize=precision[1]
    )
    plain = None if precision == (torch.float32, None) else oracle_logits(*asked, *precision)
    return AgainstOracle(logits, oracle_logits(*asked), plain, error)


def answers(scorer: Scorer, pairs: list[Pair], device: str, technique: Technique) -> dict[str, float]:
    """How far from the float32 oracle, how far it may be, and whether it ranks the pairs alike."""
    scored = against_oracle(scorer, pairs, device, technique, checkpoint(device))
    error, tolerance = scored.error
    return {
        "output_error": error,
        "output_tolerance": tolerance,
        "kendall_tau": kendall_tau(scored.logits, scored.exact),
        "kendall_floor": tau_floor(scored.exact, tolerance, scored.plain),
    }


@cache
def checkpoint(device: str) -> Path:
    """Two layers compile in seconds, dozens of times; a GPU gets the whole model."""
    return models.minilm_two_layers() if device == "cpu" else models.xlm_roberta_base()
