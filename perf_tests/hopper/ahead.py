"""Compiling rows in parallel before they take turns, to fill the compiler's cache.

Only rows whose kernels are chosen by rule: choosing by measurement needs an idle device. A failure here
happens again, and is noted, when the row is made ready.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Final

from perf_tests.hopper.contestants import Contestants
from perf_tests.hopper.rows import Row, table_rows
from perf_tests.hopper.setting import ON_GPU

THREADS: Final = "4"
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


def compile_ahead(names: Iterable[str], seconds: float, module: str = __spec__.name) -> None:
    """Make rows ready in parallel processes of a module, which end; stop after so many seconds."""
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": THREADS}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module, name], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for name in names
    ]  # fmt: skip
    end = time.monotonic() + seconds
    try:
        while any(process.poll() is None for process in started) and time.monotonic() < end:
            time.sleep(0.2)
    finally:
        for process in started:
            process.kill()
            process.wait()


def main(name: str) -> None:
    """Make one row ready and end."""
    row = next(row for row in table_rows(ON_GPU) if row.name == name)
    Contestants(ON_GPU).ready(row)
    os._exit(0)  # threads and graphs need not be waited for


if __name__ == "__main__":
    main(*sys.argv[1:])
