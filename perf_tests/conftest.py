"""Fixtures of the performance suite, what of it the gate leaves alone, and what it measures in pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from perf_tests.against import paired_request
from perf_tests.configurations import Configuration
from perf_tests.cpu.case import case_table
from perf_tests.scorers import Scorer, Scorers
from perf_tests.techniques import Technique
from perf_tests.workloads import Pair
from xenc import PRESETS
from xenc.extras import missing_for
from xenc.gate.paired.plugin import PAIRED, PAIRED_REQUEST, PairedPlugin
from xenc.gate.plugin import GATE, leave_out
from xenc.gate.report import TABLES
from xenc.profiling.measure import profile_model
from xenc.profiling.report import markdown

NOT_JUDGED = ("peer", "load", "technique", "side_by_side")
"""Other systems, latencies that depend on a rate measured on the spot, and choices that few have made; of
techniques those of another precision are judged, for their error and their ranking."""


CASE_TITLE = "xenc beside what one would use instead"


def pytest_configure(config: pytest.Config) -> None:
    """Say what `--against` measures, and show what `make bench` is for last."""
    config.stash[PAIRED_REQUEST] = partial(paired_request, fault=config.getoption("--fault"))
    TABLES[CASE_TITLE] = case_table


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A comparison and a baseline are about xenc and its own seconds: the rest is for the table."""
    gate = config.pluginmanager.get_plugin(GATE)
    if gate is not None and (gate.session.comparing or gate.session.recording):
        others = [item for item in items if any(map(item.get_closest_marker, NOT_JUDGED))]
        leave_out(config, items, [*others, *(item for item in items if item not in others and lacks(item))])


def lacks(item: pytest.Item) -> bool:
    """Whether what a row needs is not installed: it is not judged, unless the baseline has it."""
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
    """Call it with what was timed, when it has been timed; does nothing without --profile-dir.

    Leaves trace.json and profile.md in a folder named after the test. A peer is not xenc's to profile.
    """
    folder: Path | None = request.config.getoption("--profile-dir")

    def profile(scorer: Scorer, pairs: Sequence[Pair]) -> None:
        if folder is None or scorer.model is None:
            return
        own = folder / re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
        own.mkdir(parents=True, exist_ok=True)
        trace = own / "trace.json"
        measured = profile_model(scorer.model, pairs, batch_size=scorer.batch_size, trace=trace)
        (own / "profile.md").write_text(markdown(measured), encoding="utf-8")

    return profile


@pytest.fixture(scope="session")
def paired(request: pytest.FixtureRequest) -> PairedPlugin:
    plugin: PairedPlugin = request.config.pluginmanager.get_plugin(PAIRED)
    return plugin
