"""A service under load: the same arrivals for xenc and for a lock around sentence-transformers' predict.

Rates are shares of the latter's capacity. Exact laws (nothing compiles, every accepted request is answered
with its own scores) fail here; times are recorded and shown.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from perf_tests import workloads
from perf_tests.configurations import Configuration
from perf_tests.device_thread import traced_thread
from perf_tests.open_loop import BEYOND, Ask, Load, capacity, play, poisson
from perf_tests.scorers import DTYPES, OutputError, Scorer, Scorers, checkpoint, output_error
from perf_tests.workloads import Pair, Workload
from xenc import watch_compiles
from xenc.gate.exact import compile_counts
from xenc.gate.measuring.rounds import synchronised_seconds

LOCKED = "locked predict"
BOUNDED = "packed, bounded"
SERVERS = ("packed", "packed-eager", LOCKED)

SHARES = (0.5, 0.8, 1.3)
"""Of the locked server's capacity; the last is beyond it."""

CLIENTS = (64, 1, 8)

LEAST_REQUESTS = 100 * BEYOND + 100
"""In a run, so that its p99 means something, also where a bounded server refuses a quarter."""

SECONDS = {"cpu": 6.0, "cuda": 10.0}
"""Of arrivals in a run, at least, if that many requests take no longer."""

MOST_SECONDS = 60.0
"""Of arrivals in a run. A machine that is so slow has no p99."""

MOST_DOCUMENTS = {"cpu": 16, "cuda": 100}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run: who serves, asked by how many clients, at which share of the locked server's capacity."""

    device: str
    server: str
    clients: int
    share: float


def rows() -> list[Any]:
    """Pytest parameters. Servers take turns at equal arrivals, so that a machine that slows, slows all."""
    parameters = []
    for marker, device, clients, share in (
        (*where, *how) for where in (("cpu", "cpu"), ("gpu", "cuda")) for how in product(CLIENTS, SHARES)
    ):
        marks = [getattr(pytest.mark, marker), *([pytest.mark.slow] if device == "cpu" else [])]
        for server in (*SERVERS, *([BOUNDED] if share > 1 else [])):
            row = Row(device=device, server=server, clients=clients, share=share)
            name = f"{marker}-{clients}-{share}-{server.replace(', ', '-').replace(' ', '-')}"
            parameters.append(pytest.param(row, marks=marks, id=name))
    return parameters


@pytest.mark.load
@pytest.mark.benchmark(timer=synchronised_seconds)
@pytest.mark.parametrize("row", rows())
def test_load(
    benchmark: Any,
    row: Row,
    scorers: Scorers,
    capacity_of: Callable[[str], float],
    pytestconfig: pytest.Config,
) -> None:
    most = capacity_of(row.device)
    pairs_per_s = row.share * most
    requests_per_s = pairs_per_s / ((1 + MOST_DOCUMENTS[row.device]) / 2)
    arrivals = poisson(
        "load", requests_per_s=requests_per_s, requests=how_many(requests_per_s, row.device),
        draw=lambda generator: request(generator, row.device),
    )  # fmt: skip
    trace = pytestconfig.getoption("--profile-dir")
    with serving(scorers, row, half_a_second=round(0.5 * most)) as server:
        server.ask(arrivals[0].pairs)
        tracing = traced(server.scorer, trace, row) if trace else nullcontext()
        with scorers.broken(server.scorer), tracing, watch_compiles() as watch:
            load: Load = benchmark.pedantic(
                play, args=(arrivals, server.ask), kwargs={"clients": row.clients}, rounds=1, iterations=1
            )
    error, tolerance = error_of(load, server.scorer, row.device)
    benchmark.extra_info.update(
        server=row.server, clients=row.clients, offered_share=row.share, offered_pairs_per_s=pairs_per_s,
        answered_pairs_per_s=load.pairs_per_s, requests=len(arrivals), refused=load.refused,
        behind_s=load.behind, **{f"p{percent}_s": load.latency(percent) for percent in (50, 90, 99)},
        workload_fingerprint=documents(row.device).fingerprint, traced=bool(trace),
        output_error=error, output_tolerance=tolerance, **compile_counts(watch.report),
    )  # fmt: skip
    assert watch.report.clean, watch.report.describe()


def how_many(requests_per_s: float, device: str) -> int:
    """The number of requests in a run."""
    wanted = max(LEAST_REQUESTS, requests_per_s * SECONDS[device])
    return max(1, round(min(wanted, requests_per_s * MOST_SECONDS)))


class Server(NamedTuple):
    """A scorer, and how many clients may ask it at once."""

    scorer: Scorer
    ask: Ask


@contextmanager
def serving(scorers: Scorers, row: Row, *, half_a_second: int) -> Iterator[Server]:
    """A row's server, warmed up; a bounded one queues half a second's pairs, or two large requests."""
    if row.server == LOCKED:
        yield locked(scorers, row.device)
        return
    name = "packed" if row.server == BOUNDED else row.server
    scorer = ready(scorers, name, row.device)
    if row.server == BOUNDED:
        scorer.model.max_waiting_pairs = max(half_a_second, 2 * MOST_DOCUMENTS[row.device])
    try:
        yield Server(scorer, scorer.logits)
        assert scorer.model.waiting_pairs == 0
    finally:
        scorer.model.max_waiting_pairs = None


def locked(scorers: Scorers, device: str) -> Server:
    """sentence-transformers' predict, one caller at a time."""
    scorer, lock = ready(scorers, "sentence-transformers", device), threading.Lock()

    def ask(pairs: Sequence[Pair]) -> np.ndarray:
        with lock:
            return scorer.logits(pairs)

    return Server(scorer, ask)


@pytest.fixture(scope="session")
def capacity_of(scorers: Scorers) -> Callable[[str], float]:
    """Device -> pairs per second of the locked server, measured once: all rows have the same arrivals."""
    return cache(partial(capacity_of_locked, scorers))


def capacity_of_locked(scorers: Scorers, device: str) -> float:
    generator = random.Random("capacity")
    requests = [request(generator, device) for _ in range(200)]
    ask = locked(scorers, device).ask
    capacity(ask, requests, seconds=1)
    return max(capacity(ask, requests, seconds=1.5) for _ in range(3))  # others slow a shared machine


def ready(scorers: Scorers, name: str, device: str) -> Scorer:
    return scorers.ready(Configuration(name=name, device=device, workload=documents(device)))


def documents(device: str) -> Workload:
    """What requests are drawn from: a short query and documents, on two cores of one sentence each."""
    make = workloads.short_documents if device == "cpu" else workloads.short_query
    return make(batch_size=64)


@cache
def pool(device: str) -> list[Pair]:
    return documents(device).round(0)


def request(generator: random.Random, device: str) -> list[Pair]:
    return generator.choices(pool(device), k=generator.randint(1, MOST_DOCUMENTS[device]))


def error_of(load: Load, scorer: Scorer, device: str) -> OutputError:
    """The error against the oracle, of each pair's worst answer under load; each must be its own pair's."""
    pairs = pool(device)
    quiet = scorer.logits(pairs)
    row_of = {pair: row for row, pair in enumerate(pairs)}
    worst = quiet.copy()
    for outcome in load.answered:
        for pair, score in zip(outcome.arrival.pairs, outcome.scores, strict=True):
            row = row_of[pair]
            if abs(score - quiet[row]) >= abs(worst[row] - quiet[row]):
                worst[row] = score
    error = output_error(
        worst, pairs, model=checkpoint(device), device=device, max_length=512, dtype=DTYPES[device]
    )
    assert np.abs(worst - quiet).max() <= 2 * error.tolerance, "an answer that belongs to another pair"
    return error


@contextmanager
def traced(scorer: Scorer, folder: Path, row: Row) -> Iterator[None]:
    """Leave a trace of the run, if xenc is what runs."""
    if scorer.model is None:
        yield
        return
    name = f"{row.device}-{row.clients}-{row.share}-{row.server.replace(', ', '-')}.json.gz"
    with traced_thread(scorer.model, folder / name):
        yield
