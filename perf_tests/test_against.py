"""Head against the revision of `--against`, in the same processes; each item reports one configuration."""

from __future__ import annotations

from typing import Any

import pytest

from perf_tests.against import PAIRED
from perf_tests.replayed_clock import ReplayedClock
from xenc.errors import XencError
from xenc.gate.paired.plugin import PairedPlugin, not_measured
from xenc.gate.plugin import JUDGEMENT

CLOCK = ReplayedClock()

MARKERS = {"cpu": pytest.mark.cpu, "cuda": pytest.mark.gpu}

CONFIGURATIONS = [
    pytest.param(
        device, configuration.name, marks=MARKERS[device], id=f"{MARKERS[device].name}-{configuration.name}"
    )
    for device, paired in PAIRED.items()
    for configuration in paired.configurations
]


@pytest.mark.paired
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # the verdict says that
@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize(("device", "configuration"), CONFIGURATIONS)
def test_against(
    benchmark: Any, request: pytest.FixtureRequest, paired: PairedPlugin, device: str, configuration: str
) -> None:
    """pytest-benchmark gets the head's blocks; the verdict is about pairs of them and the base's."""
    try:
        run = paired.run(device)
    except XencError as error:
        request.node.stash[JUDGEMENT] = not_measured(error)
        return
    found = [result["configurations"][configuration] for result in run.results]
    blocks = [block for process in found for block in process["blocks"]]
    CLOCK.replay(benchmark, [block["wall_s"] for block in blocks if block["arm"] == "head"])
    benchmark.extra_info.update(
        base_commit=run.base_commit,
        base_seconds=[block["wall_s"] for block in blocks if block["arm"] == "base"],
        **found[0]["facts"]["head"],
    )
    request.node.stash[JUDGEMENT] = run.verdicts.configurations[configuration]
