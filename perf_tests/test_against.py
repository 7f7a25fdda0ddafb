"""Head against the revision of `--against`, in the same processes: a test for each configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perf_tests.against import MARKERS, PAIRED, PairedConfiguration
from perf_tests.device_thread import on_device_thread
from perf_tests.peers.peer import predicted
from perf_tests.ready_models import ReadyModel
from perf_tests.scored import facts_of, stage_seconds
from perf_tests.workloads import Pair
from xenc.gate.fixture import Gate

CONFIGURATIONS = [
    pytest.param(
        configuration,
        marks=getattr(pytest.mark, MARKERS[device]),
        id=f"{MARKERS[device]}-{configuration.name}",
    )
    for device, configurations in PAIRED.items()
    for configuration in configurations
]


@pytest.mark.paired
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_against(
    gate: Gate,
    configuration: PairedConfiguration,
    ready_model: Callable[[Gate, PairedConfiguration], ReadyModel],
) -> None:
    ready = ready_model(gate, configuration)
    workload = configuration.workload

    def run(pairs: list[Pair]) -> Any:
        ready.begin()
        return predicted(ready.model, pairs, workload.batch_size)

    exact = configuration.exact_on.round(0)
    gate.measure(
        run,
        [workload.round(number) for number in range(configuration.palindromes)],
        warmup=lambda: None,  # the model is warm; a fault must show afterwards
        exact_on=[exact],
        facts=lambda: facts_of(ready, run, exact, workload, explains=gate.explains),
        stages=lambda rounds: stage_seconds(ready, run, rounds),
        device_seconds=ready.device_seconds,
        load=ready.load,
        on_device=on_device_thread(ready.model),
    )
