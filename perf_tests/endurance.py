"""Does a process that lives long grow, or lose an answer?

    python -m perf_tests.endurance requests    64 threads ask 10,000 times: a tenth cancelled, a tenth invalid
    python -m perf_tests.endurance models      50 models are made, asked and closed, one after the other

Both print a Markdown table of resident memory and of threads as they go. They exit 1 if a future was not
answered, an answer was wrong, a thread was left, or the process grew more from a fifth of the run to its end
than it may.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from correctness_tests.waiting import threads_of_xenc
from perf_tests.models import tiny_bert
from xenc import CrossEncoder, PairError
from xenc.profiling.report import table
from xenc.profiling.texts import prose_pairs

MAY_GROW_MB = 64
"""From a fifth of the run on: allocators and caches are warm by then."""

PATIENCE = 120
"""Seconds within which a request must be answered."""


def resident_mb() -> float:
    """Memory of this process that is in RAM, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Growth:
    """Measures a process while it works, and remembers."""

    def __init__(self, total: int) -> None:
        self.total: int = total
        self.rows: list[tuple[int, float, int, float]] = []
        self.began = time.monotonic()

    def look(self, done: int) -> None:
        gc.collect()
        seconds = time.monotonic() - self.began
        self.rows.append((done, resident_mb(), len(threads_of_xenc()), seconds))

    def faults(self) -> list[str]:
        """What is wrong, if anything."""
        early = next(mb for done, mb, _, _ in self.rows if done * 5 >= self.total)
        grown = self.rows[-1][1] - early
        said = [] if grown <= MAY_GROW_MB else [f"grew by {grown:.0f} MB"]
        end = time.monotonic() + PATIENCE
        while (left := threads_of_xenc()) and time.monotonic() < end:
            time.sleep(0.1)
        return said + ([f"threads are left: {', '.join(thread.name for thread in left)}"] if left else [])

    def __str__(self) -> str:
        rows = [
            (f"{done:,}", f"{mb:,.0f} MB", str(threads), f"{s:.0f} s") for done, mb, threads, s in self.rows
        ]
        return table(("done", "resident memory", "threads", "after"), rows)


def many_requests(total: int, threads: int) -> tuple[Growth, list[str]]:
    """Ask in parts, so that memory is measured when nothing waits."""
    pairs, growth, faults = prose_pairs(64), Growth(total), []
    with CrossEncoder(str(tiny_bert()), device="cpu", execution="packed-eager") as model:
        expected = dict(zip(pairs, model.predict(pairs), strict=True))
        for part in range(10):
            kinds = [number % 10 for number in range(total // 10)]
            random.Random(part).shuffle(kinds)
            with ThreadPoolExecutor(threads) as pool:
                asked = [pool.submit(_ask, model, expected, kind, seed) for seed, kind in enumerate(kinds)]
                faults += [fault for future in asked if (fault := future.result()) is not None]
            growth.look((part + 1) * len(kinds))
        if model.waiting_pairs:
            faults.append(f"{model.waiting_pairs} pairs still wait")
    return growth, faults


def _ask(model: CrossEncoder, expected: dict[Any, float], kind: int, seed: int) -> str | None:
    """One request: cancelled (kind 0), invalid (1), or scored. Says what was wrong with its answer."""
    draw = random.Random(seed)
    chosen = draw.choices(list(expected), k=draw.randint(1, 8))
    if kind == 1:
        try:
            model.submit([*chosen, ("a query", None)]).result(PATIENCE)
        except PairError:
            return None
        return "an invalid request was scored"
    future: Future[Any] = model.submit(chosen)
    if kind == 0:
        future.cancel()
    try:
        scores = future.result(PATIENCE)
    except CancelledError:
        return None if kind == 0 else "a request was cancelled that nobody cancelled"
    except TimeoutError:
        return "a request was not answered"
    wrong = np.abs(np.asarray(scores) - [expected[pair] for pair in chosen]).max() > 1e-4
    return "a score was wrong" if wrong else None


def many_models(total: int) -> tuple[Growth, list[str]]:
    """Make, ask and close models."""
    pairs, growth, faults, first = prose_pairs(32), Growth(total), [], None
    for done in range(1, total + 1):
        with CrossEncoder(str(tiny_bert()), device="cpu", execution="packed-eager") as model:
            scores = model.predict(pairs)
        first = scores if first is None else first
        if not np.allclose(scores, first, atol=1e-5):
            faults.append(f"model {done} scored otherwise")
        del model
        if done % (total // 10) == 0:
            growth.look(done)
    return growth, faults


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("requests", "models"))
    parser.add_argument("--count", type=int, help="requests (default: 10,000) or models (default: 50)")
    parser.add_argument("--threads", type=int, default=64)
    options = parser.parse_args()
    run: Callable[[], tuple[Growth, list[str]]] = {
        "requests": lambda: many_requests(options.count or 10_000, options.threads),
        "models": lambda: many_models(options.count or 50),
    }[options.what]
    growth, faults = run()
    faults += growth.faults()
    print(growth, "\n".join(sorted(set(faults))) or "Nothing was lost, left or wrong.", sep="\n\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
