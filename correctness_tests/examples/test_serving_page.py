"""docs/serving.md: what it tells a reader to ask is answered as it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^(curl .*?)\n```\n\n```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SERVER = "localhost:8000"


def test_the_page_asks_in_both_shapes():
    assert len(EXAMPLES) == 2


def test_the_page_names_every_setting_and_the_server_is_as_short_as_it_says():
    server = (ROOT / "examples" / "serve.py").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(XENC_\w+)`", PAGE, re.MULTILINE)) == set(re.findall(r"XENC_\w+", server))
    assert len(server.splitlines()) <= 80
    assert "a rerank server of 80 lines" in PAGE


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_page_is_answered_as_it_says(address, command, printed):
    words = shlex.split(command, comments=True)
    path = next(word for word in words if word.startswith(SERVER)).removeprefix(SERVER)
    answered = address.post(path, **json.loads(words[words.index("-d") + 1]))
    assert answered.status == 200
    assert rounded(answered.body) == json.loads(printed)


def rounded(body: object) -> object:
    """Scores to two digits, as the page has them, and the id that it has."""
    if isinstance(body, list):
        return [rounded(each) for each in body]
    if isinstance(body, dict):
        return {name: "..." if name == "id" else rounded(value) for name, value in body.items()}
    return round(body, 2) if isinstance(body, float) else body
