"""Chunks of records through a model: some are read ahead, and a record that cannot be scored fails alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..errors import NonFiniteScoreError, OutOfMemoryError, PairError
from .chunk import Bad, Chunk, Pair, Place, take

AHEAD: Final = 2
"""Chunks that are queued in this process while one is awaited, so that the device never waits for a file."""

OF_A_PAIR: Final = (PairError, NonFiniteScoreError, OutOfMemoryError)
"""Errors that some pairs cause. Any other ends the run."""


class Scorer(Protocol):
    """What scores pairs: `xenc.CrossEncoder`."""

    def submit(self, inputs: Sequence[Pair]) -> Future[Any]:
        """Start scoring pairs: the result is an array of float32 [N] or [N, labels]."""


@dataclass(frozen=True)
class ScoredChunk:
    """Records with their scores.

    Attributes:
        rows: those that were scored.
        numbers: their lines.
        scores: of each one number, or a list with one of each label.
        bad: records that were not.
        end: where the input goes on.
    """

    rows: Any
    numbers: Sequence[int]
    scores: list[Any]
    bad: list[Bad]
    end: Place


@dataclass(frozen=True)
class Answers:
    """What became of N pairs, by their places.

    Attributes:
        scores: of each pair that was scored a number, or a list with one of each label.
        why: why each of the others has none.
    """

    scores: dict[int, Any]
    why: dict[int, str]


class Scoring(Protocol):
    """Where chunks are scored: `Here`, or on other machines.

    Attributes:
        ahead: chunks that may be begun while one is awaited.
    """

    @property
    def ahead(self) -> int:
        """See the class."""

    def begin(self, chunk: Chunk) -> Callable[[], Answers]:
        """Start scoring a chunk's pairs; what is returned waits for the answers."""


class Here:
    """Scores chunks with a model of this process."""

    ahead = AHEAD

    def __init__(self, model: Scorer) -> None:
        self._model = model

    def begin(self, chunk: Chunk) -> Callable[[], Answers]:
        """Queue a chunk's pairs."""
        return begun(self._model, chunk.pairs)


def scored(scoring: Scoring, chunks: Iterable[Chunk]) -> Iterator[ScoredChunk]:
    """Score chunks, some of them ahead, and give them in their order."""
    waiting: deque[tuple[Chunk, Callable[[], Answers]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, scoring.begin(chunk)))
        if len(waiting) > scoring.ahead:
            yield _with_scores(*waiting.popleft())
    while waiting:
        yield _with_scores(*waiting.popleft())


def _with_scores(chunk: Chunk, wait: Callable[[], Answers]) -> ScoredChunk:
    answers = wait()
    bad = [
        Bad(chunk.numbers[place], f"cannot be scored: {why}", repr(chunk.pairs[place]))
        for place, why in answers.why.items()
    ]
    good = sorted(answers.scores)
    return ScoredChunk(
        take(chunk.rows, good) if bad else chunk.rows, [chunk.numbers[place] for place in good],
        [answers.scores[place] for place in good],
        sorted([*chunk.bad, *bad], key=lambda one: one.number), chunk.end,
    )  # fmt: skip


def begun(model: Scorer, pairs: Sequence[Pair]) -> Callable[[], Answers]:
    """Start scoring pairs; what is returned waits for the answers. A pair at fault fails alone."""
    try:
        future = model.submit(pairs)
    except OF_A_PAIR as error:  # it comes with the answer, as one that is seen later
        future = Future()
        future.set_exception(error)

    def wait() -> Answers:
        try:
            return Answers(dict(enumerate(shortest(future.result()))), {})
        except OF_A_PAIR:
            return _apart(model, pairs)

    return wait


def _apart(model: Scorer, pairs: Sequence[Pair]) -> Answers:
    """Find the pairs at fault by halves: all others are scored."""
    answers = Answers({}, {})
    halves = [list(range(len(pairs)))]
    while halves:
        half = halves.pop()
        try:
            scores = shortest(model.submit([pairs[place] for place in half]).result())
        except OF_A_PAIR as error:
            if len(half) == 1:
                answers.why[half[0]] = str(error)
            else:
                halves += [half[len(half) // 2 :], half[: len(half) // 2]]
            continue
        answers.scores.update(zip(half, scores, strict=True))
    return answers


Encode = Callable[[Any, Sequence[Any]], bytes]
"""Rows and their scores -> the bytes of an output."""


def encoded_apart(encode: Encode, part: ScoredChunk) -> tuple[bytes, ScoredChunk]:
    """The records' bytes. Those that the output's format cannot hold are bad, and the others are left."""
    try:
        return encode(part.rows, part.scores), part
    except PairError:
        pass
    good, bad, pieces = [], list(part.bad), []
    for place, number in enumerate(part.numbers):
        row = take(part.rows, [place])
        try:
            pieces.append(encode(row, [part.scores[place]]))
        except PairError as error:
            bad.append(Bad(number, f"cannot be written: {error}", ""))
        else:
            good.append(place)
    bad.sort(key=lambda one: one.number)
    numbers, scores = [part.numbers[place] for place in good], [part.scores[place] for place in good]
    return b"".join(pieces), ScoredChunk(take(part.rows, good), numbers, scores, bad, part.end)


def shortest(scores: Any) -> list[Any]:
    """Scores as Python's numbers that print with float32's digits: 0.9, not 0.8999999761581421."""
    if scores.ndim > 1:
        return [shortest(row) for row in scores]
    return [float(str(score)) for score in scores]
