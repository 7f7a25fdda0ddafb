"""Optional packages: what is absent is named, with what installs it."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

from xenc import NotInstalledError
from xenc.extras import EXTRAS, missing, require

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    optional = {module for modules in EXTRAS.values() for module in modules}
    monkeypatch.setattr("xenc.extras.find_spec", lambda name: None if name in optional else find(name))


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_hint_names_an_existing_extra(extra, nothing_installed):
    assert extra in PROJECT["optional-dependencies"]
    assert missing(extra) == f"not installed: pip install 'xenc[{extra}]'"


@pytest.mark.parametrize("extra", EXTRAS)
def test_requiring_a_missing_extra_names_it_and_how_to_install_it(extra, nothing_installed):
    with pytest.raises(NotInstalledError, match=rf"quick='yes' needs .*{EXTRAS[extra][-1]}.*xenc\[{extra}\]"):
        require(extra, "quick='yes'")


def test_what_is_installed_is_not_missing(monkeypatch):
    monkeypatch.setitem(EXTRAS, "torchao", ("torch",))
    assert missing("torchao") is None
    require("torchao", "quick='yes'")
