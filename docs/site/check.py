"""Is a built site whole? Everything that its pages load or link to lies in its folder.

    python -m docs.site.check site

mkdocs checks links between Markdown pages. This reads the HTML and the styles, so that it also sees what the
theme, the reference and raw HTML bring along: scripts, styles, fonts and pictures of another host, links and
anchors that lead nowhere, and files that are no part of a site. Exits 1 and names each.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_LOADS: Final = ("script", "link", "img", "iframe", "source", "video", "audio", "embed", "object")
_IN_STYLES: Final = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")
_STRANGE: Final = {".py", ".md", ".yml", ".txt"}


@dataclass
class _Page(HTMLParser):
    """What a page has and wants: ids; addresses of what it loads; addresses of its links."""

    file: Path
    ids: set[str] = field(default_factory=set)
    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag's id and addresses."""
        had = {name: value or "" for name, value in attrs}
        self.ids |= {had[name] for name in ("id", "name") if name in had}
        addresses = [had[name] for name in ("src", "href", "data") if name in had]
        if tag == "a":
            self.links += addresses
        elif tag in _LOADS and had.get("rel") not in ("canonical", "next", "prev", "alternate"):
            self.loads += addresses
        if "mermaid" in had.get("class", "").split():  # the theme would fetch a script to draw it
            self.loads.append("https://unpkg.com/mermaid")


def problems(site: Path) -> Iterator[str]:
    """A line for each thing that is missing, comes from another host, or has no place in the site.

    Args:
        site: the folder that mkdocs has built.
    """
    pages = {file: _Page(file) for file in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: no page"
    for file, page in pages.items():
        for address in page.loads:
            if _is_elsewhere(address):
                yield f"{file.relative_to(site)} loads {address}"
        if file.name != "404.html":  # whose addresses begin at the root of a host
            for address in (*page.loads, *page.links):
                if not _is_elsewhere(address) and (lacks := _lacking(address, file, pages)):
                    yield f"{file.relative_to(site)}: {address}: {lacks}"
    for file in sorted(site.rglob("*.css")):
        for found in _IN_STYLES.finditer(file.read_text(encoding="utf-8")):
            if _is_elsewhere(found[1] or found[2]):
                yield f"{file.relative_to(site)} loads {found[1] or found[2]}"
    for file in sorted(each for each in site.rglob("*") if each.suffix in _STRANGE):
        yield f"{file.relative_to(site)} is no part of a site"


def _is_elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("http", "https", "ftp") or bool(parts.netloc)


def _lacking(address: str, file: Path, pages: dict[Path, _Page]) -> str:
    """What an address of this page leads to and is not there, or nothing."""
    parts = urlsplit(address)
    if parts.scheme:  # data:, mailto:
        return ""
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return "no such file"
    anchor = unquote(parts.fragment)
    return "no such anchor" if anchor and target in pages and anchor not in pages[target].ids else ""


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m docs.site.check")
    parser.add_argument("site", type=Path, help="the folder that mkdocs has built")
    site = parser.parse_args(arguments).site.resolve()
    found = list(problems(site))
    print("\n".join(found) or f"{len(list(site.rglob('*.html')))} pages, whole")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
