"""python -m perf_tests.ray_pairs: many pairs on a Ray of this machine, beside one process; what kills cost.

Makes the pairs (of the prose that every Python ships), scores them with `xenc score` in one process and with
`--ray local` in turns, then on Ray with a worker killed halfway, then with the driver killed halfway and gone
on with. Every output is compared with that of the one process, record by record. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from xenc import DEFAULT_MODEL, PRESETS
from xenc.profiling.report import table
from xenc.profiling.texts import prose_pairs

WORKER: Final = b"ray::Member"
"""How Ray calls the processes of xenc's workers."""

TOKENIZED: Final = 2_000
"""Pairs of which the tokenizer's speed is taken."""

TOKENIZER: Final = """
import json, sys, time
from transformers import AutoTokenizer
pairs = [[record[name] for name in ("query", "document")] for record in map(json.loads, sys.stdin)]
backend = AutoTokenizer.from_pretrained(sys.argv[1]).backend_tokenizer
backend.no_truncation(), backend.no_padding()
seconds = []
for _ in range(5):
    began = time.perf_counter()
    tokens = sum(len(each.ids) for each in backend.encode_batch_fast(pairs))
    seconds.append(time.perf_counter() - began)
print(json.dumps([tokens, seconds]))
"""


@dataclass(frozen=True)
class Run:
    """What one command took. `rate` counts from when its model was there; None if nobody said it."""

    seconds: float
    rate: float | None


class Bench:
    """Runs of `xenc score` on one file of pairs, in a folder."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.pairs, self._folder, self._options = folder / "pairs.jsonl", folder, options
        with self.pairs.open("w", encoding="utf-8") as file:
            for number, (query, document) in enumerate(prose_pairs(options.pairs)):
                print(json.dumps({"id": number, "query": query, "document": document}), file=file)

    def start(self, name: str, *, on_ray: bool, resume: bool = False) -> subprocess.Popen[str]:
        """Start a run with as many cores as there are workers, in one process or on Ray."""
        workers = str(self._options.workers)
        asked = ["--ray", "local", "--ray-workers", workers, "--ray-cpus", "1"] if on_ray else []
        return subprocess.Popen(
            [
                sys.executable, "-m", "xenc", "score", str(self.pairs), "-o", str(self.out(name)),
                "--execution", self._options.execution, "--resume" if resume else "--overwrite", *asked,
            ],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": workers},
        )  # fmt: skip

    def out(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    def run(self, name: str, meanwhile: Callable[[int], None] | None = None, **how: bool) -> Run:
        """Run to the end; `meanwhile` is given the process when half of the pairs are written."""
        began = time.monotonic()
        process = self.start(name, **how)
        if meanwhile is not None:
            self.wait_for_half(name, process)
            meanwhile(process.pid)
        _, said = process.communicate()
        if process.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"{name}: {said}")
        rate = re.search(r"\(([\d,]+) pairs/s\)", said)
        return Run(time.monotonic() - began, float(rate[1].replace(",", "")) if rate else None)

    def wait_for_half(self, name: str, process: subprocess.Popen[str]) -> None:
        progress = self._folder / f"{name}.jsonl.progress"
        while process.poll() is None:
            try:
                if json.loads(progress.read_text())["scored"] >= self._options.pairs // 2:
                    return
            except FileNotFoundError:
                pass
            time.sleep(0.02)
        raise SystemExit(f"{name}: ended before half of the pairs were written: give more --pairs")

    def compared(self, name: str, whole: str) -> str:
        """How an output differs from another: in records, and at most in a score."""
        ours, theirs = (self._read(each) for each in (name, whole))
        ids = [number for number, _ in ours]
        lost, repeated = len(theirs) - len(set(ids)), len(ids) - len(set(ids))
        in_order = "in order" if ids == [number for number, _ in theirs] else "NOT IN ORDER"
        scores = dict(theirs)
        worst = max(abs(score - scores[number]) for number, score in ours)
        return f"{lost} lost, {repeated} repeated, {in_order}, scores within {worst:.0e}"

    def _read(self, name: str) -> list[tuple[int, float]]:
        with self.out(name).open(encoding="utf-8") as file:
            return [(record["id"], record["score"]) for record in map(json.loads, file)]


def descendants(of: int) -> list[int]:
    """Processes of Linux that a process started, and those that these did."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found = [of]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def workers_of(driver: int) -> list[int]:
    """The workers of a command that started a Ray of its own."""
    found = []
    for process in descendants(driver):
        try:
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(WORKER):
                found.append(process)
        except OSError:
            continue
    return found


def kill_a_worker(driver: int) -> None:
    os.kill(workers_of(driver)[0], signal.SIGKILL)


class KillDriver:
    """Ends the command itself; then says how long its workers and Ray's other processes outlived it."""

    said = ""

    def __call__(self, driver: int) -> None:
        workers, every = workers_of(driver), descendants(driver)
        os.kill(driver, signal.SIGKILL)
        began = time.monotonic()
        lived = [_until_ended(processes, began) for processes in (workers, every)]
        self.said = f"its workers ended {lived[0]:.1f} s later, the last of Ray's processes {lived[1]:.0f} s"


def _until_ended(processes: Sequence[int], began: float) -> float:
    while any(_runs(process) for process in processes):
        time.sleep(0.05)
    return time.monotonic() - began


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tokenizer_rate(pairs: Path) -> str:
    """Tokens per second of the default model's tokenizer on one core."""
    with pairs.open(encoding="utf-8") as file:
        lines = "".join(line for line, _ in zip(file, range(TOKENIZED), strict=False))
    done = subprocess.run(
        [sys.executable, "-c", TOKENIZER, DEFAULT_MODEL], input=lines, text=True, capture_output=True,
        check=True, env={**os.environ, "RAYON_NUM_THREADS": "1"},
    )  # fmt: skip
    tokens, seconds = json.loads(done.stdout)
    rates = sorted(tokens / each for each in seconds)
    return (
        f"The tokenizer on one core: {median(rates):,.0f} tokens/s (n = {len(rates)}, {rates[0]:,.0f} to "
        f"{rates[-1]:,.0f}); {tokens / lines.count(chr(10)):.0f} tokens for each pair."
    )


def measured(bench: Bench, rounds: int) -> list[list[str]]:
    """The rows of the table."""
    times: dict[str, list[Run]] = {"one": [], "ray": []}
    for _ in range(rounds):
        times["one"].append(bench.run("one", on_ray=False))
        times["ray"].append(bench.run("ray", on_ray=True))
    rows = [
        _row("one process", times["one"], ""),
        _row("Ray", times["ray"], bench.compared("ray", "one")),
        _row("Ray, a worker killed", [bench.run("worker", kill_a_worker, on_ray=True)],
             bench.compared("worker", "one")),
    ]  # fmt: skip
    kill = KillDriver()
    killed = bench.run("driver", kill, on_ray=True)
    resumed = bench.run("driver", on_ray=True, resume=True)
    return [
        *rows,
        _row("Ray, the driver killed", [killed], kill.said),
        _row("and gone on with", [resumed], bench.compared("driver", "one")),
    ]


def _row(name: str, runs: Sequence[Run], compared: str) -> list[str]:
    rates = [run.rate for run in runs if run.rate is not None]
    return [name, _spread([run.seconds for run in runs]), _spread(rates), compared]


def _spread(numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    middle = f"{median(numbers):,.0f}"
    return middle if len(numbers) == 1 else f"{middle} ({min(numbers):,.0f} to {max(numbers):,.0f})"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf_tests.ray_pairs", description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of one core each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of what nobody kills (default: %(default)s)")
    parser.add_argument("--execution", choices=list(PRESETS), default="packed-eager")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="xenc-ray-") as folder:
        bench = Bench(Path(folder), options)
        rows = measured(bench, options.rounds)
        said = tokenizer_rate(bench.pairs)
    print(f"{options.pairs:,} pairs, {options.execution}, {options.workers} workers of one core, against one")
    print(f"process of {options.workers} threads; n = {options.rounds} where nobody kills, else 1.\n")
    print(table(["run", "seconds, start included", "pairs/s once ready", "against one process"], rows))
    print(f"\n{said}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
