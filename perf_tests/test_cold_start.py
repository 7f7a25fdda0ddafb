"""From the start of a process to its first score, with and without what an earlier process compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perf_tests.scorers import DTYPES, checkpoint

MARGIN = 0.4
ROUNDS = 3

SCRIPT = """
import sys
import torch
import xenc

checkpoint, device, dtype, cache_dir = sys.argv[1:]
model = xenc.CrossEncoder(checkpoint, device=device, model_kwargs={"dtype": getattr(torch, dtype)})
model.warmup(cache_dir=cache_dir)
print(model.predict(("a question", "a document")))
"""


def first_score(device: str, cache_dir: Path, compiler_cache: Path) -> None:
    """One process, whose compiler finds nothing but what `cache_dir` holds."""
    dtype = str(DTYPES[device]).removeprefix("torch.")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(checkpoint(device)), device, dtype, str(cache_dir)],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(compiler_cache)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.slow
@pytest.mark.parametrize("saved", [False, True], ids=["nothing-saved", "saved"])
@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.cpu), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_first_score(benchmark: Any, tmp_path: Path, device: str, saved: bool) -> None:
    if saved:
        first_score(device, tmp_path / "saved", tmp_path / "before")
    rounds = iter(range(ROUNDS))

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        number = next(rounds)
        folder = tmp_path / ("saved" if saved else f"nothing-{number}")
        return (device, folder, tmp_path / f"compiler-{number}"), {}

    benchmark.pedantic(first_score, setup=fresh, rounds=ROUNDS, iterations=1)
    benchmark.extra_info.update(margin=MARGIN)
