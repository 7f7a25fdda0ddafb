"""Fixtures of the performance suite."""

import pytest

from perf_tests.scorers import Scorers


@pytest.fixture(scope="session")
def scorers(request: pytest.FixtureRequest) -> Scorers:
    return Scorers(fault=request.config.getoption("--fault"))
