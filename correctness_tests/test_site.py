"""The documentation as a site: its links, its pages, and what `make docs` refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import xenc
from docs.site import check, links

ROOT = Path(__file__).parent.parent
SETTINGS = yaml.load((ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)
SOURCES = [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in links.TOP)]

WHOLE = {
    "index.html": '<link rel="stylesheet" href="a.css"><a href="b.html#there">b</a> <a href="https://x.org">x</a>',
    "b.html": '<h1 id="there">b</h1> <img src="data:image/png;base64,AA"> <a href="#there">b</a>',
    "a.css": "body { background: url(p.png) }",
}


def pages_of(nav: list) -> list[str]:
    """The files of a nav, at any depth."""
    found = []
    for entry in nav:
        for value in entry.values():
            found += [value] if isinstance(value, str) else pages_of(value)
    return found


def test_each_page_has_one_place_in_the_navigation():
    assert sorted(pages_of(SETTINGS["nav"])) == sorted(source.name for source in SOURCES)


def test_the_reference_has_each_public_name_once():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: xenc\.(\w+)$", page, re.MULTILINE)) == sorted(xenc.__all__)


@pytest.mark.parametrize(
    ("page", "written", "in_site"),
    [
        ("docs/gate.md", "[a](hopper.md#goals)", "[a](hopper.md#goals)"),
        ("docs/gate.md", "[a](#words)", "[a](#words)"),
        ("docs/gate.md", "[a](https://example.org)", "[a](https://example.org)"),
        ("docs/gate.md", "![a](gate-cpu.png)", "![a](gate-cpu.png)"),
        ("docs/gate.md", "[a](../CONTRIBUTING.md#rules)", "[a](CONTRIBUTING.md#rules)"),
        ("docs/gate.md", "[a](../README.md) and [b](../xenc/__init__.py)", "a and b"),
        ("docs/gate.md", "[a](default_model/card.md)", "a"),
        ("CONTRIBUTING.md", "[a](docs/gate.md#words)", "[a](gate.md#words)"),
        ("CONTRIBUTING.md", "[a](CHANGELOG.md) [b](records/README.md)", "[a](CHANGELOG.md) b"),
        ("docs/gate.md", "```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
    ],
)
def test_a_link_out_of_the_pages_becomes_its_words(page, written, in_site):
    assert links.in_site(written, page) == in_site


def test_a_link_to_no_file_is_refused_by_name():
    with pytest.raises(LookupError, match=r"docs/gate\.md links to .+, and there is no nowhere\.py"):
        links.in_site("[a](../nowhere.py)", "docs/gate.md")


@pytest.fixture
def problems(tmp_path):
    """What is wrong with the whole site once some of its files are others."""

    def found(**others: str) -> list[str]:
        files = WHOLE | {name.replace("_", "."): text for name, text in others.items()}
        for name, text in files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        return list(check.problems(tmp_path))

    return found


def test_a_whole_site_has_no_problem(problems):
    assert problems() == []


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        (
            "b_html",
            '<script src="https://x.org/a.js"></script><p id="there">',
            "b.html loads https://x.org/a.js",
        ),
        ("b_html", '<img src="//x.org/a.png"><p id="there">', "b.html loads //x.org/a.png"),
        ("b_html", '<p id="there" class="mermaid">', "b.html loads https://unpkg.com/mermaid"),
        ("a_css", "@import 'https://x.org/a.css';", "a.css loads https://x.org/a.css"),
        ("a_css", "p { src: url('https://x.org/a.woff') }", "a.css loads https://x.org/a.woff"),
        ("b_html", '<p id="elsewhere">', "index.html: b.html#there: no such anchor"),
        ("b_html", '<a href="c.html" id="there">', "b.html: c.html: no such file"),
        ("draw_py", "", "draw.py is no part of a site"),
    ],
)
def test_what_is_missing_strange_or_elsewhere_is_named(problems, file, text, problem):
    assert problems(**{file: text}) == [problem]


def test_a_folder_without_pages_is_no_site(tmp_path):
    assert list(check.problems(tmp_path)) == [f"{tmp_path}: no page"]


def test_warnings_are_errors():
    """With --quiet mkdocs counts none, whatever --strict says."""
    (command,) = re.findall(r"^\t.* -m mkdocs (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "--strict" in command
    assert "-q" not in command


def test_nothing_is_loaded_from_elsewhere_by_the_settings():
    assert SETTINGS["theme"]["font"] == "false"
    assert SETTINGS["strict"] == "true"
    assert not {"extra_css", "extra_javascript", "repo_url"} & set(SETTINGS)
