"""The rows of `test_predict`: presets on every workload. For peers see `perf_tests.cpu` and `.hopper`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest

from perf_tests.workloads import ON_CPU, ON_GPU, Workload
from xenc import Execution
from xenc.models.quantize import missing_torchao

ROWS: Final = (
    "eager-unsorted", "eager-sorted", "sdpa-unsorted", "sdpa-sorted", "compiled-eager-sorted",
    "compiled-sdpa-sorted", "bucketed", "packed",
    "packed-eager", "packed-deterministic", "packed-int8", "packed-float8",
)  # fmt: skip
"""The presets that are timed on every workload; `perf_tests.techniques` has the others."""

REFERENCE: Final = "sdpa-sorted"
"""Speed-ups are over this preset, the best that is not compiled. It runs again before each round."""

ROUNDS: Final = 5

_ELSEWHERE: Final = {"cpu": ("packed-int8", "packed-float8"), "cuda": ("packed-int8",)}
"""Rows that repeat another one on this device, take minutes, or cannot run."""

DEVICES: Final = [pytest.param("cpu", marks=pytest.mark.cpu), pytest.param("cuda", marks=pytest.mark.gpu)]
"""Parameters of tests without rows."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One row of the table on one device ("cpu" or "cuda")."""

    name: str
    device: str
    workload: Workload


def missing_for(execution: Execution) -> str | None:
    """Why packages are missing for an execution, and the remedy; None if it can run."""
    return missing_torchao() if execution.quantize is not None else None


def configurations() -> list[Any]:
    """Pytest parameters, marked by device; on two cores they take longer than `make bench` has."""
    parameters = []
    for marker, device, workloads in (("cpu", "cpu", ON_CPU), ("gpu", "cuda", ON_GPU)):
        for workload in workloads:
            for name in (name for name in ROWS if name not in _ELSEWHERE[device]):
                marks = [getattr(pytest.mark, marker), *([pytest.mark.slow] if device == "cpu" else [])]
                configuration = Configuration(name=name, device=device, workload=workload)
                label = f"{marker}-{workload.name}-{name}"
                parameters.append(pytest.param(configuration, marks=marks, id=label))
    return parameters
