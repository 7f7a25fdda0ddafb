"""Optional packages: what is absent is named, with what installs it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from xenc import NotInstalledError
from xenc.extras import EXTRAS, missing, require

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_missing_is_named_with_an_existing_extra_that_installs_it(extra, nothing_installed):
    assert extra in PROJECT["optional-dependencies"]
    assert missing(extra) == f"not installed: pip install 'xenc[{extra}]'"
    with pytest.raises(NotInstalledError, match=rf"quick='yes' needs .*{EXTRAS[extra][-1]}.*xenc\[{extra}\]"):
        require(extra, "quick='yes'")


def test_what_is_installed_is_not_missing(monkeypatch):
    monkeypatch.setitem(EXTRAS, "torchao", ("torch",))
    assert missing("torchao") is None
    require("torchao", "quick='yes'")
