"""Who takes part in `perf_tests.hopper.modular`: xenc, and sentence-transformers padded and flattened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from perf_tests import workloads
from perf_tests.ettin_models import Stored
from perf_tests.peers.peer import MAX_LENGTH
from perf_tests.peers.sentence_transformers import (
    FlattenedSentenceTransformers,
    SentenceTransformers,
    batches_seen,
)
from perf_tests.scorers import Scorer, output_error
from perf_tests.side_by_side.contestant import Contestant, warmed_up
from perf_tests.side_by_side.turns import Timed
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder
from xenc.errors import first_line

OURS: Final = "xenc"
FLAT: Final = "flattened"
PADDED: Final = "SDPA, batch "

Making = tuple[str, int, Callable[[], Any]]
"""A contestant's name, its batch size, and what makes its model."""


class Work(NamedTuple):
    """How many pairs a round has, and batch sizes that sentence-transformers may choose from."""

    pairs: int
    batch_sizes: tuple[int, ...]

    def round(self) -> list[Pair]:
        """One short question with passages of four to eight sentences, of about 150 tokens together."""
        return replace(workloads.rank_request(batch_size=64), pairs_per_round=self.pairs).round(0)


WORK: Final = {"cuda": Work(2048, (32, 128)), "cpu": Work(12, (4, 8))}


def ours_of(checkpoints: Stored, setting: Any) -> CrossEncoder:
    """xenc's model, of what is published.

    Raises:
        ModelError: xenc's pipeline does not run it.
    """
    model = CrossEncoder(
        str(checkpoints.published), device=setting.device, max_length=MAX_LENGTH, execution=PRESETS["packed"],
        model_kwargs={"dtype": setting.dtype},
    )  # fmt: skip
    _ = model.pipeline
    return model


def makings(setting: Any, checkpoints: Stored, ours: CrossEncoder) -> list[Making]:
    """Whoever takes part; nothing is loaded yet."""
    given, sizes = (checkpoints.published, setting.device, setting.dtype), WORK[setting.device].batch_sizes
    stock = cache(lambda: SentenceTransformers(*given, sizes[0]))
    return [
        (OURS, sizes[0], lambda: ours),
        *((f"{PADDED}{size}", size, lambda size=size: stock().at(size)) for size in sizes),
        (FLAT, sizes[-1], lambda: FlattenedSentenceTransformers(*given, sizes[-1])),
    ]


def made_ready(
    setting: Any, checkpoints: Stored, pairs: Sequence[Pair], name: str, size: int, make: Callable[[], Any]
) -> tuple[Contestant | None, Timed, float | None]:
    """A contestant whose answers are compared with the oracle's; its record; and a peer's padding.

    The contestant is None if it failed, and the record then says why.
    """
    timed, padding = Timed(group="modular", name=name, batch_size=size), None
    try:
        model = make()
        if name == OURS:
            row = SimpleNamespace(name=name, execution=PRESETS["packed"])
            contestant = warmed_up(row, model, size, setting.device)
            contestant.take_over()
            logits = contestant.logits(pairs)
        else:
            row = SimpleNamespace(name=name, execution=None)
            contestant = Contestant(row, Scorer(peer=model, batch_size=size), setting.device)
            with batches_seen(model) as seen:
                logits = contestant.logits(pairs)
            padding = 1 - sum(real for real, _ in seen) / sum(every for _, every in seen)
        timed.warmup_s, timed.graphs = contestant.scorer.warmup_s, contestant.scorer.graphs
        timed.output_error, timed.output_tolerance = output_error(
            logits, pairs, model=checkpoints.classifier, device=setting.device, max_length=MAX_LENGTH,
            dtype=setting.dtype,
        )  # fmt: skip
    except Exception as error:
        timed.problem = problem_of(error)
        return None, timed, padding
    return contestant, timed, padding


def problem_of(error: Exception) -> str:
    """One line."""
    return f"{type(error).__name__}: {first_line(error)}"
