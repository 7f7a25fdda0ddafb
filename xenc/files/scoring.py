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
"""Chunks that are queued while one is awaited, so that the device never waits for a file."""

OF_A_PAIR: Final = (PairError, NonFiniteScoreError, OutOfMemoryError)
"""Errors that some pairs cause. Any other ends the run."""


Encode = Callable[[Any, Sequence[Any]], bytes]
"""Rows and their scores -> the bytes of an output."""


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


def scored(model: Scorer, chunks: Iterable[Chunk]) -> Iterator[ScoredChunk]:
    """Score chunks in their order, with AHEAD of them in the queue."""
    waiting: deque[tuple[Chunk, Future[Any]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, _submitted(model, chunk.pairs)))
        if len(waiting) > AHEAD:
            yield _answer(model, *waiting.popleft())
    while waiting:
        yield _answer(model, *waiting.popleft())


def _submitted(model: Scorer, pairs: Sequence[Pair]) -> Future[Any]:
    """Its errors come with the answer, also those that are seen at once."""
    try:
        return model.submit(pairs)
    except OF_A_PAIR as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


def _answer(model: Scorer, chunk: Chunk, future: Future[Any]) -> ScoredChunk:
    try:
        scores = shortest(future.result())
    except OF_A_PAIR:
        return _apart(model, chunk)
    return ScoredChunk(chunk.rows, chunk.numbers, scores, list(chunk.bad), chunk.end)


def _apart(model: Scorer, chunk: Chunk) -> ScoredChunk:
    """Find the pairs at fault by halves: all others are scored."""
    found: dict[int, Any] = {}
    bad = list(chunk.bad)
    halves = [list(range(len(chunk.pairs)))]
    while halves:
        half = halves.pop()
        try:
            scores = shortest(model.submit([chunk.pairs[place] for place in half]).result())
        except OF_A_PAIR as error:
            if len(half) == 1:
                number, pair = chunk.numbers[half[0]], chunk.pairs[half[0]]
                bad.append(Bad(number, f"cannot be scored: {error}", repr(pair)))
            else:
                halves += [half[len(half) // 2 :], half[: len(half) // 2]]
            continue
        found.update(zip(half, scores, strict=True))
    good = sorted(found)
    bad.sort(key=lambda one: one.number)
    numbers, scores = [chunk.numbers[place] for place in good], [found[place] for place in good]
    return ScoredChunk(take(chunk.rows, good), numbers, scores, bad, chunk.end)


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
