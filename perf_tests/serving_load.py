"""python -m perf_tests.serving_load: the server of examples/serve.py under load, over the loopback interface.

The same server runs on xenc and on sentence-transformers' `predict` behind a lock. All get the same Poisson
arrivals of requests of 1 to 16 short documents (see `open_loop`), at shares of what the locked one answers to
a single client. Every answer must be its own pair's, and nothing may compile meanwhile.

Goodput counts the requests that were answered within a deadline after they were due.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from perf_tests.open_loop import Ask, Load, capacity, play, poisson
from perf_tests.rerank_servers import DEVICE, LOCKED, SERVERS, STARTING_S, running
from perf_tests.scorers import Scorer
from perf_tests.test_load import MOST_DOCUMENTS, error_of, request
from perf_tests.workloads import Pair
from xenc.profiling.report import table

HEADER = ("offered", "server", "pairs/s", "p50 ms", "p99 ms", "goodput/s", "in time", "refused", "requests")


class InParts:
    """Asks for any number of pairs, by requests that are no larger than those of the load."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] logits."""
        most = MOST_DOCUMENTS[DEVICE]
        return np.concatenate([self._ask(pairs[row : row + most]) for row in range(0, len(pairs), most)])


def in_time(load: Load, deadline: float) -> int:
    """How many requests were answered within so many seconds after they were due."""
    return sum(outcome.latency <= deadline for outcome in load.answered)


def row_of(server: str, load: Load, deadline: float) -> list[str]:
    def ms(percent: int) -> str:
        latency = load.latency(percent)
        return "-" if latency is None else f"{1000 * latency:,.0f}"

    good, requests = in_time(load, deadline), len(load.outcomes)
    return [
        server, f"{load.pairs_per_s:,.0f}", ms(50), ms(99), f"{good / load.seconds:.1f}",
        f"{good / requests:.1%}", str(load.refused), str(requests),
    ]  # fmt: skip


def measure(given: argparse.Namespace) -> str:
    generator = random.Random("capacity")
    some = [request(generator, DEVICE) for _ in range(200)]
    rows = []
    with ExitStack() as started:
        locked = started.enter_context(running(LOCKED, 0))
        most = max(capacity(locked, some, seconds=given.seconds) for _ in range(3))  # others slow a machine
        limit = max(round(given.deadline * most), 2 * MOST_DOCUMENTS[DEVICE])
        asks = {
            server: locked if server == LOCKED else started.enter_context(running(server, limit))
            for server in given.servers
        }
        for share in given.shares:
            requests_per_s = share * most / ((1 + MOST_DOCUMENTS[DEVICE]) / 2)
            arrivals = poisson(
                "serving", requests_per_s=requests_per_s, requests=given.requests,
                draw=lambda texts: request(texts, DEVICE),
            )  # fmt: skip
            for server, ask in asks.items():
                load = play(arrivals, ask, clients=given.clients, patience=STARTING_S)
                error = error_of(load, Scorer(batch_size=0, peer=InParts(ask)), DEVICE)
                assert error.error <= error.tolerance, error
                offered = f"{share}x, {requests_per_s:.1f} requests/s"
                rows.append([offered, *row_of(server, load, given.deadline)])
    said = (
        f"The locked server answers {most:,.0f} pairs/s to one client. {limit:,} pairs may wait, except "
        f"where none is refused. Deadline {given.deadline:g} s, {given.clients} clients."
    )
    return f"{said}\n\n{table(HEADER, rows)}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf_tests.serving_load", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="of each row")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.8, 1.3], help="of the locked one's speed"
    )
    parser.add_argument("--servers", choices=SERVERS, nargs="+", default=SERVERS)
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds")
    parser.add_argument("--clients", type=int, default=64, help="threads that ask")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of each of three looks at the locked one"
    )
    print(measure(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
