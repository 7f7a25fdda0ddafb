"""Fixtures of the performance suite, what the gate does not judge, and what it measures in pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from perf_tests.against import paired_request
from perf_tests.configurations import Configuration, missing_for
from perf_tests.cpu.case import case_table
from perf_tests.scorers import Scorer, Scorers
from perf_tests.techniques import Technique
from perf_tests.workloads import Pair
from xenc import PRESETS
from xenc.gate.paired.plugin import PAIRED, PAIRED_REQUEST, PairedPlugin
from xenc.gate.plugin import GATE, leave_out
from xenc.gate.report import TABLES
from xenc.profiling.measure import profile_model
from xenc.profiling.report import markdown

NOT_JUDGED = ("load", "technique", "side_by_side")
"""Latencies at a rate measured on the spot, rare choices, and tables with other systems. Techniques
in another precision have no such mark: they are judged for their error and ranking."""

CASE_TITLE = "xenc beside what one would use instead"


def pytest_configure(config: pytest.Config) -> None:
    """Register what `--against` measures, and the table of `make bench`."""
    config.stash[PAIRED_REQUEST] = partial(paired_request, fault=config.getoption("--fault"))
    TABLES[CASE_TITLE] = case_table


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A comparison and a baseline judge xenc's own seconds only."""
    gate = config.pluginmanager.get_plugin(GATE)
    if gate is not None and (gate.session.comparing or gate.session.recording):
        others = [item for item in items if any(map(item.get_closest_marker, NOT_JUDGED))]
        leave_out(config, items, [*others, *(item for item in items if item not in others and lacks(item))])


def lacks(item: pytest.Item) -> bool:
    """Whether a row's packages are not installed: it is not judged, unless the baseline has it."""
    for value in getattr(getattr(item, "callspec", None), "params", {}).values():
        if isinstance(value, Technique):
            return missing_for(value.execution) is not None
        if isinstance(value, Configuration) and value.name in PRESETS:
            return missing_for(PRESETS[value.name]) is not None
    return False


@pytest.fixture(scope="session")
def scorers(request: pytest.FixtureRequest) -> Scorers:
    option = request.config.getoption
    return Scorers(fault=option("--fault"), named_kernels=option("--profile-dir") is not None)


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> Callable[[Scorer, Sequence[Pair]], None]:
    """Profiles a scorer of xenc after it was timed, if there is a --profile-dir.

    Leaves trace.json and profile.md in a folder named after the test.
    """
    folder: Path | None = request.config.getoption("--profile-dir")

    def profile(scorer: Scorer, pairs: Sequence[Pair]) -> None:
        if folder is None or scorer.model is None:
            return
        own = folder / re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
        trace = own / "trace.json"
        measured = profile_model(scorer.model, pairs, batch_size=scorer.batch_size, trace=trace)
        (own / "profile.md").write_text(markdown(measured), encoding="utf-8")

    return profile


@pytest.fixture(scope="session")
def paired(request: pytest.FixtureRequest) -> PairedPlugin:
    plugin: PairedPlugin = request.config.pluginmanager.get_plugin(PAIRED)
    return plugin
