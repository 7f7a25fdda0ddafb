"""Break xenc on purpose, one small way at a time, and see which law notices.

    python -m correctness_tests.mutants [NAME ...]

Each mutant is a change of text in a copy of the tree. First the copy runs unchanged: a law that is broken
already would "notice" anything. Exits 1 if a mutant survives.
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

from correctness_tests.mutations import MUTANTS, Mutant
from correctness_tests.mutations_cuda import CUDA_MUTANTS
from correctness_tests.mutations_encoder_decoder import ENCODER_DECODER_MUTANTS
from correctness_tests.mutations_gate import GATE_MUTANTS
from correctness_tests.mutations_kernels import KERNEL_MUTANTS
from correctness_tests.mutations_packed import PACKED_MUTANTS
from correctness_tests.mutations_prefix import PREFIX_MUTANTS
from correctness_tests.mutations_quantize import QUANTIZE_MUTANTS

ROOT = Path(__file__).parent.parent
COPIED = ("xenc", "perf_tests", "correctness_tests")
AT_A_TIME = 2

EVERY = (
    *MUTANTS, *PACKED_MUTANTS, *PREFIX_MUTANTS, *ENCODER_DECODER_MUTANTS, *QUANTIZE_MUTANTS,
    *GATE_MUTANTS, *CUDA_MUTANTS, *KERNEL_MUTANTS,
)  # fmt: skip


def copy_tree(directory: Path) -> Path:
    for name in COPIED:
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, directory)
    (ROOT / ".cache").mkdir(exist_ok=True)
    (directory / ".cache").symlink_to(ROOT / ".cache")
    return directory


def apply(mutant: Mutant, tree: Path) -> None:
    path = tree / "xenc" / mutant.file
    path.write_text(mutated(mutant, path.read_text()))


def mutated(mutant: Mutant, text: str) -> str:
    """What becomes of a file's text."""
    for old, new in mutant.edits:
        assert text.count(old) == 1, f"{mutant.name}: {old!r} stands {text.count(old)} times in {mutant.file}"
        text = text.replace(old, new)
    return text


def run_tests(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Pytest's exit status, and the first test that failed (or the end of what it printed)."""
    nodes = [f"correctness_tests/{test}" for test in tests]
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
