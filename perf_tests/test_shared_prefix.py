"""One request to a causal reranker, each pair whole and with what all pairs begin with computed once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch

from perf_tests import causal_model, workloads
from perf_tests.configurations import DEVICES
from perf_tests.peers.peer import predicted
from perf_tests.scorers import DTYPES
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder
from xenc.gate.exact import compile_counts
from xenc.gate.measure import synchronised_seconds, time_rounds

MARGIN = 0.4
ROUNDS = 7
DOCUMENTS = 50
BUDGETS = {"cpu": (512, 1024, 1280, 1536, 1792, 2048), "cuda": None}
"""On two cores a shape costs a forward pass to warm up: a few will do."""

INSTRUCTION = (
    "Given a question about the language, judge whether the passage that follows states the rule answering "
    "it. A passage that only mentions the same words, or that gives an example without the rule, does not. "
    "Where the passage states a part of the rule only, weigh what is missing against what the question asks. "
    "Answer with one word. "
)
QUERY = "How does Python look up names, and what of those that are bound in another block?"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.benchmark(timer=synchronised_seconds),
    pytest.mark.parametrize("device", DEVICES),
]


def pairs() -> list[Pair]:
    """One query against passages of two or three sentences."""
    generator = random.Random("shared prefix")
    sentences = workloads.sentences()
    return [
        (QUERY, " ".join(generator.choices(sentences, k=generator.randint(1, 3)))) for _ in range(DOCUMENTS)
    ]


@cache
def warm(name: str, device: str) -> CrossEncoder:
    model = CrossEncoder(
        str(causal_model.small_causal()), device=device, model_kwargs={"dtype": DTYPES[device]},
        execution=replace(PRESETS[name], token_budgets=BUDGETS[device]),
    )  # fmt: skip
    model.warmup()
    return model


def logits(model: CrossEncoder, request: Sequence[Pair]) -> np.ndarray:
    return predicted(model, request, len(request), prompt=INSTRUCTION)


def flops(model: CrossEncoder) -> float:
    """Of the last request, by what its report says: products of every token, scores of those attended to."""
    report, base = model.last_report, model.transformers_model.base_model
    assert report is not None
    products = sum(layer.weight.numel() for layer in base.modules() if isinstance(layer, torch.nn.Linear))
    prefix = report.shared_tokens // (report.pairs - 1)
    attended = sum(count * (count + 1) / 2 for count in report.token_counts)
    attended -= (report.pairs - 1) * prefix * (prefix + 1) / 2
    config = model.transformers_model.config
    per_attended = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return report.all_tokens * 2 * products + attended * per_attended


@pytest.mark.parametrize("name", [pytest.param("packed", id="control"), "packed-shared-prefix"])
def test_one_request_of_a_query_and_50_documents(benchmark: Any, device: str, name: str) -> None:
    """Each round right after the same request on packed whole pairs; the texts are read in both."""
    request, model, whole = pairs(), warm(name, device), warm("packed", device)
    ours, theirs = logits(model, request), logits(whole, request)
    assert theirs.std() > 0.3
    tolerance = 1e-4 if device == "cpu" else 0.1 * float(np.abs(theirs).max())
    timing = time_rounds(
        benchmark, partial(logits, model), [request] * ROUNDS, reference=partial(logits, whole)
    )
    ratios = [
        reference / second for second, reference in zip(timing.seconds, timing.reference_seconds, strict=True)
    ]
    report, compiled = model.last_report, model.pipeline.compiled
    assert report is not None
    assert compiled is not None
    benchmark.extra_info.update(
        margin=MARGIN, **compile_counts(timing.compiles), padded_share=report.waste,
        all_tokens=report.all_tokens, shared_tokens=report.shared_tokens,
        speedup_by_flops=flops(whole) / flops(model), output_error=float(np.abs(ours - theirs).max()),
        output_tolerance=tolerance, configuration=name, workload="one request", reference="packed",
        reference_seconds=timing.reference_seconds, waste=report.waste, graphs=compiled.graphs,
        chapter="architecture", when="causal rerankers: one query, many documents",
    )  # fmt: skip
    if ratios:
        benchmark.extra_info.update(slowest_ratio=min(ratios), fastest_ratio=max(ratios))
