"""Compiling rows in parallel before they take turns, to fill the compiler's cache.

Only rows whose kernels are chosen by rule: choosing by measurement needs an idle device. A failure here
happens again, and is noted, when the row is made ready.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from perf_tests.hopper.children import Ended, run_all
from perf_tests.hopper.contestants import Contestants
from perf_tests.hopper.rows import Row, table_rows
from perf_tests.hopper.setting import ON_GPU

THREADS: Final = "3"
"""Of each compiler: several run at once."""


def compiled_by_rule(rows: Iterable[Row]) -> list[str]:
    """The first row of each model that compiles without measuring."""
    chosen: dict[object, str] = {}
    for row in rows:
        execution = row.execution
        compiles = row.peer == "sentence-transformers-compiled" or (
            execution is not None and execution.compile_mode in ("default", "reduce-overhead")
        )
        if compiles:
            chosen.setdefault(row.model_key, row.name)
    return list(chosen.values())


def compiling_environment() -> dict[str, str]:
    """Of processes that compile while others do."""
    return {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": THREADS}


def compile_ahead(
    commands: Mapping[str, Sequence[str]], seconds: float, say: Callable[[str, Ended], object]
) -> None:
    """Run Python with these arguments in parallel processes, which end; stop after so many seconds."""
    run_all(commands, seconds, compiling_environment(), say)


def commands_of(rows: Iterable[Row]) -> dict[str, Sequence[str]]:
    """What makes rows ready, by name: arguments of Python."""
    return {name: ("-m", __spec__.name, name) for name in compiled_by_rule(rows)}


def main(name: str) -> None:
    """Make one row ready and end."""
    row = next(row for row in table_rows(ON_GPU) if row.name == name)
    Contestants(ON_GPU).ready(row)
    os._exit(0)  # threads and graphs need not be waited for


if __name__ == "__main__":
    main(*sys.argv[1:])
