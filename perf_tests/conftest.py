"""Fixtures of the performance suite, what of it the gate leaves alone, and what it measures in pairs."""

from __future__ import annotations

from functools import partial

import pytest

from perf_tests.against import paired_request
from perf_tests.scorers import Scorers
from xenc.gate.paired.plugin import PAIRED, PAIRED_REQUEST, PairedPlugin
from xenc.gate.plugin import GATE, leave_out

NOT_JUDGED = ("peer", "load")
"""Other systems, and latencies that depend on a rate measured on the spot."""


def pytest_configure(config: pytest.Config) -> None:
    """Say what `--against` measures."""
    config.stash[PAIRED_REQUEST] = partial(paired_request, fault=config.getoption("--fault"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A comparison and a baseline are about xenc and its own seconds: the rest is for the table."""
    gate = config.pluginmanager.get_plugin(GATE)
    if gate is not None and (gate.session.comparing or gate.session.recording):
        leave_out(config, items, [item for item in items if any(map(item.get_closest_marker, NOT_JUDGED))])


@pytest.fixture(scope="session")
def scorers(request: pytest.FixtureRequest) -> Scorers:
    return Scorers(fault=request.config.getoption("--fault"))


@pytest.fixture(scope="session")
def paired(request: pytest.FixtureRequest) -> PairedPlugin:
    plugin: PairedPlugin = request.config.pluginmanager.get_plugin(PAIRED)
    return plugin
