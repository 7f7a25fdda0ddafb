"""A Ray of this machine, for all laws that need one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from correctness_tests.cluster import killers
from xenc.commands import main, options
from xenc.files import chunk, parquet

ROOT = Path(__file__).parents[2]
Run = Callable[..., int]


@pytest.fixture(scope="package")
def found_by_workers() -> Iterator[None]:
    """Workers import what this process would: the xenc and the tests of this tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="package")
def local_ray(found_by_workers: None) -> Iterator[None]:
    """This process has a Ray with room for two workers, and for a task of Ray Data beside them."""
    ray = pytest.importorskip("ray", reason="pip install 'xenc[ray]' to hold the laws of clusters")
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `xenc score` in a folder of its own with a model that may end its process; the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "load", killers.load)
    for module in (chunk, parquet):
        monkeypatch.setattr(module, "CHUNK_RECORDS", 7)

    def run(*arguments: object) -> int:
        return main(["score", *map(str, arguments), "--quiet"])

    return run
