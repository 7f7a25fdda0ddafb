"""`xenc score` with a model that is quick, and small chunks so that a small file has many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from correctness_tests.files.fake_model import FakeModel
from xenc.commands import main, options
from xenc.files import chunk, parquet

Run = Callable[..., int]


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `xenc score` in a folder of its own; the exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "load", lambda *_, **__: FakeModel())
    for module in (chunk, parquet):
        monkeypatch.setattr(module, "CHUNK_RECORDS", 7)

    def run(*arguments: object) -> int:
        return main(["score", *map(str, arguments)])

    return run
