"""Break xenc on purpose, one small way at a time, and see which law notices.

    python -m correctness_tests.mutants [NAME ...]

Each mutant is a change of text in a copy of the tree; `mutations` lists them. First the copy runs unchanged:
a law that is broken already would "notice" anything. Exits 1 if a mutant survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from correctness_tests.mutations import EVERY, Mutant
from correctness_tests.mutations.find import Place, files_of_tests, find_place, find_test, places

ROOT = Path(__file__).parent.parent
COPIED = ("xenc", "perf_tests", "correctness_tests")
AT_A_TIME = 2


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


def apply(mutant: Mutant, tree: Path) -> None:
    path, text = mutated(mutant, places(tree / "xenc"))
    path.write_text(text)


def run_tests(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Pytest's exit status, and the first test that failed (or the end of what it printed)."""
    files = files_of_tests(tree)
    nodes = [find_test(test, files) for test in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(tree), "COLUMNS": "200"}
    done = subprocess.run([*command, *nodes], cwd=tree, env=environment, capture_output=True, text=True)
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    first = (
        failed[0].removeprefix("correctness_tests/") if failed else done.stdout[-300:] + done.stderr[-300:]
    )
    return done.returncode, first


def assert_copy_is_imported(tree: Path) -> None:
    where = "import importlib.util as u; print(u.find_spec('xenc').origin)"
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    origin = subprocess.run(
        [sys.executable, "-c", where], cwd=tree, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert origin == str(tree / "xenc" / "__init__.py"), origin


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


def main(names: Sequence[str]) -> int:
    if unknown := set(names) - {mutant.name for mutant in EVERY}:
        print(f"no mutant is called {', '.join(sorted(unknown))}")
        return 1
    chosen = [mutant for mutant in EVERY if not names or mutant.name in names]
    with tempfile.TemporaryDirectory() as directory:
        tree = copy_tree(Path(directory))
        assert_copy_is_imported(tree)
        status, first = run_tests(tree, sorted({test for mutant in chosen for test in mutant.tests}))
    if status != 0:
        print(f"a law is broken before any mutant: {first}")
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
