"""An open loop of requests, whose arrivals do not depend on the server's speed.

Arrivals are drawn in advance from a Poisson process. In a closed loop, where a client sends its next request
after its answer, a slower server gets fewer requests (Schroeder, Wierman and Harchol-Balter, "Open Versus
Closed: A Cautionary Tale", NSDI 2006). Latency counts from when a request was due, not from when a client
sent it: otherwise requests that a stall delayed would be missing from the percentiles (Gil Tene's coordinated
omission, "How NOT to Measure Latency").
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from perf_tests.workloads import Pair
from xenc import Overloaded

Ask = Callable[[Sequence[Pair]], np.ndarray]
"""N pairs -> their scores [N]."""

PATIENCE: Final = 120
"""Seconds after the last arrival within which every request must be answered."""


BEYOND: Final = 3
"""Requests that must be slower than a percentile for it to be shown: 300 in all for the 99th."""


class Unanswered(AssertionError):
    """Requests that were accepted and not answered."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One request, due so many seconds after the start."""

    due: float
    pairs: Sequence[Pair]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An arrival's scores [N], or None if it was refused, and the seconds since it was due."""

    arrival: Arrival
    scores: np.ndarray | None
    latency: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """A whole run; `seconds` from its start to its last answer."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def answered(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.scores is not None]

    @property
    def refused(self) -> int:
        return len(self.outcomes) - len(self.answered)

    @property
    def behind(self) -> float:
        """Seconds from the last arrival to the last answer."""
        return self.seconds - max(outcome.arrival.due for outcome in self.outcomes)

    @property
    def pairs_per_s(self) -> float:
        return sum(len(outcome.arrival.pairs) for outcome in self.answered) / self.seconds

    def latency(self, percent: int) -> float | None:
        """A percentile of the answered requests' latencies, in seconds; None if too few lie beyond it."""
        seconds = [outcome.latency for outcome in self.answered]
        if len(seconds) * (100 - percent) < 100 * BEYOND:
            return None
        return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def poisson(
    seed: str, *, requests_per_s: float, requests: int, draw: Callable[[random.Random], Sequence[Pair]]
) -> list[Arrival]:
    """So many arrivals of a Poisson process; the same for the same seed, denser for a higher rate."""
    gaps, texts = random.Random(f"{seed} gaps"), random.Random(f"{seed} texts")
    arrivals: list[Arrival] = []
    due = 0.0
    while len(arrivals) < requests:
        arrivals.append(Arrival(due=due, pairs=draw(texts)))
        due += gaps.expovariate(requests_per_s)
    return arrivals


def play(arrivals: Sequence[Arrival], ask: Ask, *, clients: int, patience: float = PATIENCE) -> Load:
    """Ask for every arrival, in order, when it is due or as soon after as one of the client threads is free.

    Raises:
        Unanswered: a request got an error other than `Overloaded`, or no answer in time.
    """
    run = _Run(arrivals, ask)
    threads = [
        threading.Thread(target=run.client, args=(torch.get_num_threads(),), daemon=True)
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    deadline = time.perf_counter() + arrivals[-1].due + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.perf_counter()))
    missing = len(arrivals) - len(run.outcomes)
    if missing:
        cause = run.errors[0] if run.errors else None
        raise Unanswered(f"{missing} of {len(arrivals)} requests were not answered: {cause!r}") from cause
    return Load(outcomes=tuple(run.outcomes), seconds=run.last)


class _Run:
    """State shared by the clients of one run."""

    def __init__(self, arrivals: Sequence[Arrival], ask: Ask) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: list[BaseException] = []
        self.last = 0.0
        self._ask, self._next, self._lock = ask, iter(arrivals), threading.Lock()
        self._start = time.perf_counter()

    def client(self, threads: int) -> None:
        if torch.get_num_threads() != threads:  # a setting per thread that compiled graphs guard on
            torch.set_num_threads(threads)
        while (arrival := self._take()) is not None:
            time.sleep(max(0.0, arrival.due - self._now()))
            scores = None
            try:
                scores = self._ask(arrival.pairs)
            except Overloaded:
                pass
            except BaseException as error:
                self.errors.append(error)
                continue
            now = self._now()
            with self._lock:
                self.outcomes.append(Outcome(arrival=arrival, scores=scores, latency=now - arrival.due))
                self.last = max(self.last, now)

    def _take(self) -> Arrival | None:
        with self._lock:
            return next(self._next, None)

    def _now(self) -> float:
        return time.perf_counter() - self._start


def capacity(ask: Ask, requests: Sequence[Sequence[Pair]], *, seconds: float) -> float:
    """Pairs per second of one caller that asks for one request after the other, for so many seconds."""
    started, pairs, number = time.perf_counter(), 0, 0
    while (took := time.perf_counter() - started) < seconds:
        request = requests[number % len(requests)]
        ask(request)
        pairs, number = pairs + len(request), number + 1
    return pairs / took
