"""What some architectures allow for: one pass for several answers (T5), a prefix computed once (causal)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from correctness_tests import t5_checkpoints
from perf_tests import causal_model, workloads
from perf_tests.configurations import DEVICES
from perf_tests.peers.peer import predicted
from perf_tests.scored import exact as counted
from perf_tests.scorers import DTYPES
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder, Execution, FirstStep
from xenc.gate.exact import compile_counts
from xenc.gate.measuring.rounds import Timing, synchronised_seconds, time_rounds

ROUNDS = 7
BATCH_SIZE = 16
Answer = Callable[[Sequence[Pair]], np.ndarray]

ONE = FirstStep(targets=(("▁true", "▁false"),))
OTHER = FirstStep(targets=(("▁relevant", "▁irrelevant"),))
BOTH = FirstStep(targets=ONE.targets + OTHER.targets)
BRIEF = workloads.brief(pairs=60, batch_size=BATCH_SIZE)

DOCUMENTS = 50
BUDGETS = {"cpu": (512, 1024, 1280, 1536, 1792, 2048), "cuda": None}
"""On two cores each shape costs a forward pass to warm up: a few will do."""

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


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5 of 4 + 4 layers x 256, seeded."""
    sizes = {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 4, "num_heads": 8}
    return t5_checkpoints.make(tmp_path_factory.mktemp("t5"), **sizes)


@cache
def warm(checkpoint: Path, device: str, execution: str | Execution, **options: Any) -> CrossEncoder:
    model = CrossEncoder(
        str(checkpoint), device=device, model_kwargs={"dtype": DTYPES[device]}, execution=execution, **options
    )
    model.warmup(BATCH_SIZE)
    return model


def measure(
    benchmark: Any, device: str, model: CrossEncoder, ours: Answer, theirs: Answer,
    rounds: list[list[Pair]], **row: Any,
) -> Timing:  # fmt: skip
    """Each round right after another way to the same answers, on the same pairs."""
    found, exact = ours(rounds[0]), theirs(rounds[0])
    assert exact.std() > 0.1
    timing = time_rounds(benchmark, ours, rounds, reference=theirs)
    compiled = model.pipeline.compiled
    benchmark.extra_info.update(
        **row, **compile_counts(timing.compiles), margin=0.4, chapter="architecture",
        reference_seconds=timing.reference_seconds, graphs=0 if compiled is None else compiled.graphs,
        waste=model.last_report.waste, output_error=float(np.abs(found - exact).max()),
        output_tolerance=1e-4 if device == "cpu" else 0.1 * float(np.abs(exact).max()),
    )  # fmt: skip
    benchmark.extra_info.update(exact=counted(benchmark.extra_info))
    return timing


def t5_ready(checkpoint: Path, device: str, execution: str, asked: FirstStep) -> tuple[CrossEncoder, Answer]:
    """A model and its scores of pairs: [N], or [N, S] for S > 1 questions."""
    model = warm(checkpoint, device, execution, first_step=asked, max_length=BRIEF.max_length)
    return model, lambda pairs: predicted(model, pairs, BATCH_SIZE)


def measure_t5(benchmark: Any, device: str, ready: tuple[CrossEncoder, Answer], theirs: Answer, **row: str):
    rounds = [BRIEF.round(number) for number in range(ROUNDS)]
    model, ours = ready
    measure(
        benchmark, device, model, ours, theirs, rounds, **row, workload=BRIEF.name,
        workload_fingerprint=BRIEF.fingerprint,
        round_sizes=[sum(model.pipeline.tokenize(pairs).counts) for pairs in rounds],
    )  # fmt: skip


def test_compiled_t5(benchmark: Any, t5: Path, device: str) -> None:
    _, plain = t5_ready(t5, device, "sdpa-sorted", ONE)
    measure_t5(
        benchmark, device, t5_ready(t5, device, "bucketed", ONE), plain, configuration="T5, bucketed",
        reference="T5, padded", when="monoT5 and its like",
    )  # fmt: skip


def test_two_answers_from_one_pass_of_the_encoder(benchmark: Any, t5: Path, device: str) -> None:
    """Beside asking twice, of the same checkpoint."""
    (_, one), (_, other) = (t5_ready(t5, device, "bucketed", asked) for asked in (ONE, OTHER))
    measure_t5(
        benchmark, device, t5_ready(t5, device, "bucketed", BOTH),
        lambda pairs: np.stack([one(pairs), other(pairs)], axis=1),
        configuration="T5, two answers at once", reference="asking twice",
        when="several questions about the same pairs",
    )  # fmt: skip


def flops(model: CrossEncoder) -> float:
    """Of the last request, by its report: products of every token, scores of those attended to."""
    report, base, config = (
        model.last_report,
        model.transformers_model.base_model,
        model.transformers_model.config,
    )
    products = sum(layer.weight.numel() for layer in base.modules() if isinstance(layer, torch.nn.Linear))
    prefix = report.shared_tokens // (report.pairs - 1)
    attended = sum(count * (count + 1) / 2 for count in report.token_counts)
    attended -= (report.pairs - 1) * prefix * (prefix + 1) / 2
    per_attended = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return report.all_tokens * 2 * products + attended * per_attended


@pytest.mark.parametrize("name", [pytest.param("packed", id="control"), "packed-shared-prefix"])
def test_one_request_of_a_query_and_50_documents(benchmark: Any, device: str, name: str) -> None:
    """Each round right after the same request on packed whole pairs; the texts are tokenized in both."""
    draw, sentences = random.Random("shared prefix"), workloads.sentences()
    request = [(QUERY, " ".join(draw.choices(sentences, k=draw.randint(1, 3)))) for _ in range(DOCUMENTS)]
    model, whole = (
        warm(causal_model.small_causal(), device, replace(PRESETS[each], token_budgets=BUDGETS[device]))
        for each in (name, "packed")
    )
    ours, theirs = (
        partial(predicted, each, batch_size=DOCUMENTS, prompt=INSTRUCTION) for each in (model, whole)
    )
    timing = measure(
        benchmark, device, model, ours, theirs, [request] * ROUNDS, configuration=name,
        workload="one request", reference="packed", when="causal rerankers: one query, many documents",
    )  # fmt: skip
    report = model.last_report
    benchmark.extra_info.update(
        padded_share=report.waste, all_tokens=report.all_tokens, shared_tokens=report.shared_tokens,
        speedup_by_flops=flops(whole) / flops(model),
    )  # fmt: skip
    ratios = [other / own for own, other in zip(timing.seconds, timing.reference_seconds, strict=True)]
    if ratios:
        benchmark.extra_info.update(slowest_ratio=min(ratios), fastest_ratio=max(ratios))
