"""What `test_predict` times: presets, and the peers that one would use instead, on every workload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest

from perf_tests.peers import FACTORIES
from perf_tests.workloads import ON_CPU, ON_GPU, Workload

ROWS: Final = (
    "eager-unsorted", "eager-sorted", "sdpa-unsorted", "sdpa-sorted", "compiled-eager-sorted",
    "compiled-sdpa-sorted", "bucketed", "packed",
    "packed-eager", "packed-deterministic", "packed-cudagraphs", "packed-int8", "packed-float8",
)  # fmt: skip
"""The presets that are timed on every workload; `perf_tests.techniques` has the others."""

PEERS: Final = tuple(FACTORIES)

REFERENCE: Final = "sdpa-sorted"
"""Speed-ups are over this one: the best that runs without compiling. It is run again before each round."""

ROUNDS: Final = 5

_ALWAYS_ON_CPU: Final = (
    "sdpa-sorted", "compiled-sdpa-sorted", "bucketed", "packed", "sentence-transformers",
    "onnxruntime", "openvino",
)  # fmt: skip
"""On two cores the full table takes too long for `make bench`, except on the seed workload."""

_LEFT_OUT: Final = ("packed-deterministic", "sentence-transformers-compiled")

_ELSEWHERE: Final = {
    "cpu": ("packed-cudagraphs", "packed-int8", "packed-float8"),
    "cuda": ("packed-int8", "onnxruntime", "openvino"),
}
"""Rows that would repeat another one on this device, take minutes, or have nothing to run on."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One row of the table on one device ("cpu" or "cuda")."""

    name: str
    device: str
    workload: Workload


def configurations() -> list[Any]:
    """Pytest parameters, marked by device and by whether a short bench leaves them out."""
    parameters = []
    for marker, device, workloads in (("cpu", "cpu", ON_CPU), ("gpu", "cuda", ON_GPU)):
        for workload in workloads:
            for name in (name for name in (*ROWS, *PEERS) if name not in _ELSEWHERE[device]):
                marks = [getattr(pytest.mark, marker)]
                short = name in _ALWAYS_ON_CPU or (workload.name == "seed" and name not in _LEFT_OUT)
                if device == "cpu" and not short:
                    marks.append(pytest.mark.slow)
                if name in PEERS:
                    marks.append(pytest.mark.peer)
                configuration = Configuration(name=name, device=device, workload=workload)
                label = f"{marker}-{workload.name}-{name}"
                parameters.append(pytest.param(configuration, marks=marks, id=label))
    return parameters
