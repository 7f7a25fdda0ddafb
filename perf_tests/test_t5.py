"""T5 rerankers that answer with a word: compiled, and several answers from one pass of the encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from correctness_tests import t5_checkpoints
from perf_tests import workloads
from perf_tests.configurations import DEVICES
from perf_tests.peers.peer import predicted
from perf_tests.scorers import DTYPES
from perf_tests.workloads import Pair
from xenc import CrossEncoder, FirstStep
from xenc.gate.exact import compile_counts
from xenc.gate.measure import synchronised_seconds, time_rounds

MARGIN = 0.4
ROUNDS = 7
BATCH_SIZE = 16

ONE = FirstStep(targets=(("▁true", "▁false"),))
OTHER = FirstStep(targets=(("▁relevant", "▁irrelevant"),))
BOTH = FirstStep(targets=ONE.targets + OTHER.targets)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.benchmark(timer=synchronised_seconds),
    pytest.mark.parametrize("device", DEVICES),
]

WORKLOAD = workloads.brief(pairs=60, batch_size=BATCH_SIZE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5 of 4 + 4 layers x 256, seeded."""
    sizes = {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 4, "num_heads": 8}
    return t5_checkpoints.make(tmp_path_factory.mktemp("t5"), **sizes)


@cache
def ready(checkpoint: Path, device: str, execution: str, asked: FirstStep) -> CrossEncoder:
    model = CrossEncoder(
        str(checkpoint), device=device, execution=execution, first_step=asked,
        max_length=WORKLOAD.max_length, model_kwargs={"dtype": DTYPES[device]},
    )  # fmt: skip
    model.warmup(BATCH_SIZE)
    return model


def logits(model: CrossEncoder, pairs: Sequence[Pair]) -> np.ndarray:
    """[N], or [N, S] for S > 1 scores of a pair."""
    return predicted(model, pairs, BATCH_SIZE)


def measure(
    benchmark: Any, device: str, model: CrossEncoder, beside: Callable[[Sequence[Pair]], np.ndarray],
    **row: str,
) -> None:  # fmt: skip
    """Each round right after another way to the same answers, on the same pairs."""
    rounds = [WORKLOAD.round(number) for number in range(ROUNDS)]
    ours, theirs = logits(model, rounds[0]), beside(rounds[0])
    timing = time_rounds(benchmark, lambda pairs: logits(model, pairs), rounds, reference=beside)
    report, compiled = model.last_report, model.pipeline.compiled
    assert report is not None
    benchmark.extra_info.update(
        **row, **compile_counts(timing.compiles), workload=WORKLOAD.name, margin=MARGIN,
        workload_fingerprint=WORKLOAD.fingerprint, reference_seconds=timing.reference_seconds,
        round_tokens=[sum(model.pipeline.tokenize(pairs).counts) for pairs in rounds],
        graphs=compiled.graphs if compiled is not None else 0, waste=report.waste,
        output_error=float(np.abs(ours - theirs).max()),
        output_tolerance=1e-4 if device == "cpu" else 0.1 * float(np.abs(theirs).max()),
    )  # fmt: skip


def test_compiled(benchmark: Any, checkpoint: Path, device: str) -> None:
    plain = ready(checkpoint, device, "sdpa-sorted", ONE)
    measure(
        benchmark, device, ready(checkpoint, device, "bucketed", ONE), lambda pairs: logits(plain, pairs),
        configuration="T5, bucketed", reference="T5, padded", chapter="architecture",
        when="monoT5 and its like",
    )  # fmt: skip


def test_two_answers_from_one_pass_of_the_encoder(benchmark: Any, checkpoint: Path, device: str) -> None:
    """Beside asking twice, of the same checkpoint."""
    one, other = (ready(checkpoint, device, "bucketed", asked) for asked in (ONE, OTHER))
    measure(
        benchmark, device, ready(checkpoint, device, "bucketed", BOTH),
        lambda pairs: np.stack([logits(one, pairs), logits(other, pairs)], axis=1),
        configuration="T5, two answers at once", reference="asking twice", chapter="architecture",
        when="several questions about the same pairs",
    )  # fmt: skip
