"""A hook of mkdocs: pages are written for readers of the repository, whose links also lead out of docs/.

A page's link to another page stays one. A link to any other file of the repository becomes its words, because
no address of the repository is known, and a file that is not there is an error. CONTRIBUTING.md and
CHANGELOG.md stand at the top of the repository, where people look for them, and become pages here.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]

TOP: Final = ("CONTRIBUTING.md", "CHANGELOG.md")
"""Pages that stand at the top of the repository."""

_FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def in_site(markdown: str, page: str) -> str:
    """A page's text with its links as they are in the site.

    Args:
        markdown: the text as it stands in the repository.
        page: the page's path from the repository's root.

    Raises:
        LookupError: a link leads to a file that is not there.
    """
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda link: _rewritten(link, page), part) for part in parts[::2]]
    return "".join(parts)


def _rewritten(link: re.Match[str], page: str) -> str:
    image, words, address = link.groups()
    file, mark, anchor = address.partition("#")
    if not file or ":" in file:
        return link[0]
    target = os.path.normpath(os.path.join(os.path.dirname(page), file))
    if not (ROOT / target).exists():
        raise LookupError(f"{page} links to {address}, and there is no {target}.")
    published = target if target in TOP else target.removeprefix("docs/")
    if image or (published.endswith(".md") and "/" not in published and target != "README.md"):
        return f"{image}[{words}]({published}{mark}{anchor})"
    return words


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that stand at the top of the repository."""
    from mkdocs.structure.files import File

    for name in TOP:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites a page's links before it is rendered.

    Raises:
        PluginError: a link leads to a file that is not there.
    """
    from mkdocs.exceptions import PluginError

    name = page.file.src_uri
    try:
        return in_site(markdown, name if name in TOP else f"docs/{name}")
    except LookupError as error:
        raise PluginError(str(error)) from error
