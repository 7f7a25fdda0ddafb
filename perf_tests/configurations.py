"""What `test_predict` times: every preset, and sentence-transformers as the peer, on every workload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pytest

from perf_tests.workloads import ON_CPU, ON_GPU, Workload
from xenc import PRESETS

PEER: Final = "sentence-transformers"
"""The stock CrossEncoder, which sorts by characters and pads to the longest, with SDPA attention."""

REFERENCE: Final = "sdpa-sorted"
"""Speed-ups are over this one: the best that runs without compiling. It is run again before each round."""

ROUNDS: Final = 5

_ALWAYS_ON_CPU: Final = ("eager-sorted", "sdpa-sorted", "compiled-sdpa-sorted", "bucketed", PEER)
"""On two cores the full table takes too long for `make bench`, except on the seed workload."""


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
            for name in (*PRESETS, PEER):
                marks = [getattr(pytest.mark, marker)]
                if device == "cpu" and workload.name != "seed" and name not in _ALWAYS_ON_CPU:
                    marks.append(pytest.mark.slow)
                configuration = Configuration(name=name, device=device, workload=workload)
                label = f"{marker}-{workload.name}-{name}"
                parameters.append(pytest.param(configuration, marks=marks, id=label))
    return parameters
