"""Break xenc on purpose, one small way at a time, and see which law notices.

    python -m correctness_tests.mutants [NAME ...]

Each mutant is a change of text in a copy of the tree; `mutations` lists them. First the copy runs unchanged:
a law that is broken already would "notice" anything. Exits 1 if a mutant survives.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from correctness_tests.mutations import EVERY, Mutant
from correctness_tests.mutations.find import Place, files_of_tests, find_place, find_test, places

ROOT = Path(__file__).parent.parent
COPIED = ("xenc", "examples", "perf_tests", "correctness_tests")
MUTATED = ("xenc", "examples")
AT_A_TIME = 2

FORKS = multiprocessing.get_context("forkserver")
"""Makes processes of one that has imported what takes seconds to import, and has started no thread."""

FORKS.set_forkserver_preload(["pytest", "hypothesis", "sentence_transformers", "torch._inductor.compile_fx"])


def copy_tree(directory: Path) -> Path:
    for name in COPIED:
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, directory)
    (ROOT / ".cache").mkdir(exist_ok=True)
    (directory / ".cache").symlink_to(ROOT / ".cache")
    return directory


def mutated(mutant: Mutant, among: Sequence[Place]) -> tuple[Path, str]:
    """The file that a mutant changes, and what becomes of its text."""
    try:
        place = find_place(mutant.where, mutant.old, among)
    except LookupError as error:
        raise LookupError(f"{mutant.name}: {error}") from None
    text, end = place.path.read_text(), place.start + len(place.source)
    return place.path, text[: place.start] + place.source.replace(mutant.old, mutant.new) + text[end:]


def places_of(tree: Path) -> list[Place]:
    """All that a mutant may change."""
    return [place for name in MUTATED for place in places(tree / name)]


def apply(mutant: Mutant, tree: Path) -> None:
    path, text = mutated(mutant, places_of(tree))
    path.write_text(text)


def run_tests(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Pytest's exit status, and the first test that failed (or the end of what it printed)."""
    files = files_of_tests(tree)
    arguments = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    with tempfile.NamedTemporaryFile(mode="r", encoding="utf-8", errors="replace") as output:
        nodes = [find_test(test, files) for test in tests]
        process = FORKS.Process(target=_pytest, args=(tree, [*arguments, *nodes], output.name))
        process.start()
        process.join()
        said, status = output.read(), process.exitcode or 0
    failed = [line.split()[1] for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return status, failed[0].removeprefix("correctness_tests/") if failed else said[-600:]


def _pytest(tree: Path, arguments: Sequence[str], output: str) -> None:
    """Run pytest on a tree, in a process that has imported large packages already, but nothing of xenc's."""
    with open(output, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(HF_HUB_OFFLINE="1", PYTHONPATH=str(tree), COLUMNS="200")
    os.chdir(tree)
    sys.path[:] = [str(tree), *(each for each in sys.path if Path(each or ".").resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in COPIED]:
        del sys.modules[name]
    status = int(pytest.main(list(arguments)))
    sys.stdout.flush()
    os._exit(status)  # without waiting for threads


def verdict(mutant: Mutant) -> tuple[str, bool]:
    """A line of the table, and whether the mutant was killed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        tree = copy_tree(Path(directory))
        apply(mutant, tree)
        status, first = run_tests(tree, mutant.tests)
    killed = status == 1
    outcome = first if killed else "SURVIVED" if status == 0 else f"pytest exited {status}: {first}"
    return f"{mutant.name:36} {time.monotonic() - started:4.0f} s  {outcome}", killed


def broken_laws(sets: Iterable[Sequence[str]]) -> list[str]:
    """The first test that fails without a mutant, of each list of tests; each runs as for its mutant."""
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(AT_A_TIME) as pool:
        tree = copy_tree(Path(directory))
        found = pool.map(lambda tests: run_tests(tree, tests), sets)
        return [first for status, first in found if status != 0]


def main(names: Sequence[str]) -> int:
    if unknown := set(names) - {mutant.name for mutant in EVERY}:
        print(f"no mutant is called {', '.join(sorted(unknown))}")
        return 1
    chosen = [mutant for mutant in EVERY if not names or mutant.name in names]
    if broken := broken_laws({mutant.tests for mutant in chosen}):
        print(f"a law is broken before any mutant: {broken[0]}")
        return 1
    survivors = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for line, killed in pool.map(verdict, chosen):
            survivors += not killed
            print(line, flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
