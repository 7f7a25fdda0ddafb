"""Rows timed in turns, each once per round on the same pairs: a device that slows down slows all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from perf_tests.side_by_side.contestant import Contestant
from perf_tests.workloads import Pair
from xenc.compiling.watch import watch_compiles
from xenc.errors import first_line
from xenc.gate.exact import compile_counts
from xenc.gate.measuring.rounds import synchronised_seconds
from xenc.gate.record import relative_spread
from xenc.profiling.side_by_side import nothing_collected

PRIMED_ON: Final = 64
"""Pairs that a contestant scores before each turn, to refill its buffers and the device's caches."""


@dataclass(kw_only=True)
class Timed:
    """A row's measurements.

    Attributes:
        group, name, batch_size: the row's.
        warmup_s, graphs: of its warm-up.
        seconds: wall clock per round.
        device_seconds: of forward passes per round; empty for a peer.
        waste: padding / all tokens, a median over rounds; None for a peer.
        counts, finding: what compiled, broke or fell to eager while it was timed; the last of it in words.
        output_error, output_tolerance: largest distance from the float32 oracle, and what is tolerated.
        largest_error: the same over all pairs of a round, where all were compared.
        kendall_tau, kendall_floor: agreement with the oracle's order, and its lower bound.
        problem: why it could not be made ready or timed.
    """

    group: str
    name: str
    batch_size: int
    warmup_s: float = 0.0
    graphs: int = 0
    seconds: list[float] = field(default_factory=list)
    device_seconds: list[float] = field(default_factory=list)
    waste: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    output_error: float | None = None
    output_tolerance: float | None = None
    largest_error: float | None = None
    kendall_tau: float | None = None
    kendall_floor: float | None = None
    finding: str = ""
    problem: str | None = None

    @property
    def stands(self) -> bool:
        """Whether it was timed, answered rightly and compiled nothing meanwhile; else it does not count."""
        right = self.output_error is not None and self.output_error <= (self.output_tolerance or 0.0)
        return self.problem is None and bool(self.seconds) and right and not any(self.counts.values())

    def spread_per(self, counts: Sequence[int]) -> float:
        """Relative spread of seconds per token, since rounds differ in their pairs."""
        return relative_spread([each / count for each, count in zip(self.seconds, counts, strict=False)])

    def per_second(self, counts: Sequence[int]) -> float:
        """Pairs or tokens per second: a median over rounds."""
        return statistics.median(count / each for count, each in zip(counts, self.seconds, strict=False))


def time_in_turns(
    contestants: Sequence[tuple[Any, Timed]],
    rounds: Sequence[Sequence[Pair]],
    after_each: Callable[[], object],
    time_left: Callable[[], bool],
    primed_on: int = PRIMED_ON,
    turn: Callable[[Any, Timed, Sequence[Pair], int], object] | None = None,
) -> int:
    """Time every contestant once on each round; each round begins with another one.

    Args:
        contestants: made ready, with the records to fill; `Contestant`s unless there is a `turn`.
        rounds: lists of pairs.
        after_each: called after each turn; its errors are ignored.
        time_left: whether another round may begin.
        primed_on: pairs that each scores before its turn.
        turn: times a contestant once and fills its record; `one_turn` if left out.

    Returns:
        How many rounds were timed.
    """
    wastes: dict[int, list[float]] = {}
    if not contestants:
        return 0
    for number, pairs in enumerate(rounds):
        if number and not time_left():
            return number
        first = number % len(contestants)
        for contestant, timed in (*contestants[first:], *contestants[:first]):
            if timed.problem is None:
                try:
                    (turn or one_turn)(contestant, timed, pairs, primed_on)
                except Exception as error:
                    timed.problem = f"{type(error).__name__}: {first_line(error)}"
                    continue
                if contestant.waste is not None:
                    wastes.setdefault(id(timed), []).append(contestant.waste)
                    timed.waste = statistics.median(wastes[id(timed)])
                with suppress(Exception):
                    after_each()
    return len(rounds)


def ratio(row: Timed, other: Timed) -> float:
    """Seconds of a row / seconds of another on the same round: a median over rounds."""
    return statistics.median(ratios(row, other))


def ratios(row: Timed, other: Timed) -> list[float]:
    """The same, of each round."""
    return [ours / theirs for ours, theirs in zip(row.seconds, other.seconds, strict=True)]


def one_turn(contestant: Contestant, timed: Timed, pairs: Sequence[Pair], primed_on: int) -> None:
    """Score a list of pairs once, on the clock, and add to the record what was seen."""
    contestant.take_over()
    with nothing_collected(), watch_compiles() as watch:
        contestant.logits(pairs[:primed_on])
        started = synchronised_seconds()
        contestant.logits(pairs)
        timed.seconds.append(synchronised_seconds() - started)
    if contestant.device_seconds is not None:
        timed.device_seconds.append(contestant.device_seconds)
    for name, count in compile_counts(watch.report).items():
        if isinstance(count, int):
            timed.counts[name] = timed.counts.get(name, 0) + count
        elif count:
            timed.finding = count
