"""From the start of a process to its first score, with and without what an earlier process compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perf_tests.cold_start import first_score
from perf_tests.configurations import DEVICES
from perf_tests.scorers import DTYPES, checkpoint

MARGIN = 0.4
ROUNDS = 3


@pytest.mark.slow
@pytest.mark.parametrize("saved", [False, True], ids=["nothing-saved", "saved"])
@pytest.mark.parametrize("device", DEVICES)
def test_first_score(benchmark: Any, tmp_path: Path, device: str, saved: bool) -> None:
    what = checkpoint(device), device, DTYPES[device]
    if saved:
        first_score(*what, tmp_path / "saved", tmp_path / "before")
    rounds = iter(range(ROUNDS))

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        number = next(rounds)
        folder = tmp_path / ("saved" if saved else f"nothing-{number}")
        return (*what, folder, tmp_path / f"compiler-{number}"), {}

    benchmark.pedantic(first_score, setup=fresh, rounds=ROUNDS, iterations=1)
    benchmark.extra_info.update(margin=MARGIN)
