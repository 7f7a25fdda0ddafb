"""One benchmark's rounds: of one session, or the median of several and their drift. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class Samples:
    """One benchmark's timed rounds in one session.

    Attributes:
        seconds: of each round, in order.
        protocol: properties that must be equal for two samples to be comparable, by name: workload
            fingerprint, dtype, model.
        margin: slowdown that is tolerated, as a fraction.
        reference: the name of what was timed just before each round on the same pairs; None if nothing was.
        reference_seconds: seconds of the reference, one per round.
        exact: exact facts, by name.
    """

    seconds: tuple[float, ...]
    protocol: Mapping[str, str]
    margin: float
    reference: str | None = None
    reference_seconds: tuple[float, ...] = ()
    exact: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """The speed-up over a reference.

    Attributes:
        reference: its name.
        times: seconds of the reference / own seconds.
        spread: standard deviation between sessions of log(times); None for one session.
    """

    reference: str
    times: float
    spread: float | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One benchmark of a stored baseline.

    Attributes:
        seconds: of each round, the median over the sessions.
        protocol: as in `Samples`.
        margin: as in `Samples`.
        spread: standard deviation between the levels of the sessions, as a fraction; None for one session.
        speedup: over the reference in the same sessions.
        exact: as in `Samples`; the largest value of any session.
    """

    seconds: tuple[float, ...]
    protocol: Mapping[str, str]
    margin: float
    spread: float | None
    speedup: Speedup | None = None
    exact: Mapping[str, float] = field(default_factory=dict)


def entry_of(samples: Samples) -> Entry:
    """The entry of one session, without a spread."""
    speedup = None
    if samples.reference is not None:
        times = math.exp(statistics.median(speedup_logs(samples)))
        speedup = Speedup(reference=samples.reference, times=times, spread=None)
    return Entry(
        seconds=samples.seconds,
        protocol=samples.protocol,
        margin=samples.margin,
        spread=None,
        speedup=speedup,
        exact=samples.exact,
    )


def combine(entries: Sequence[Entry]) -> Entry:
    """Combine entries of one session each, all of one benchmark with equal protocol."""
    first = entries[0]
    if len(entries) == 1:
        return first
    seconds = tuple(statistics.median(rounds) for rounds in zip(*(e.seconds for e in entries), strict=True))
    levels = [statistics.median(log_ratios(entry.seconds, seconds)) for entry in entries]
    speedups = [entry.speedup for entry in entries if entry.speedup is not None]
    speedup = None
    if len(speedups) == len(entries) and len({each.reference for each in speedups}) == 1:
        times = [each.times for each in speedups]
        drift = statistics.stdev(math.log(each) for each in times)
        speedup = replace(speedups[0], times=statistics.median(times), spread=drift)
    names = sorted({name for entry in entries for name in entry.exact})
    exact = {name: max(entry.exact[name] for entry in entries if name in entry.exact) for name in names}
    return replace(first, seconds=seconds, spread=statistics.stdev(levels), speedup=speedup, exact=exact)


def log_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """log(ours / theirs), one per round."""
    return [math.log(one / other) for one, other in zip(ours, theirs, strict=True)]


def speedup_logs(samples: Samples) -> list[float]:
    """log(reference seconds / own seconds), one per round."""
    return log_ratios(samples.reference_seconds, samples.seconds)
