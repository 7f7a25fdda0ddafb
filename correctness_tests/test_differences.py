"""docs/differences.md: every row has a reason and names a law, which is there and always runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from correctness_tests.mutations.find import files_of_tests, find_test

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
HEADINGS = ["what is different", "reason", "law"]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


TABLE = [cells(line) for line in PAGE.splitlines() if line.startswith("|")]
ROWS = TABLE[2:]


def test_the_table_has_its_columns_and_no_row_twice():
    assert TABLE[0] == HEADINGS
    assert len(ROWS) > 10
    assert [row for row in ROWS if len(row) != len(HEADINGS) or not all(row)] == []
    assert len({row[0] for row in ROWS}) == len(ROWS)


def decorators(file: str, name: str) -> str:
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return " ".join(map(ast.unparse, found.decorator_list))


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:50] for row in ROWS])
def test_a_difference_is_held_by_a_law_that_always_runs(row):
    difference, reason, law = row
    assert difference.endswith(".")
    assert reason.endswith(".")
    named = re.fullmatch(r"`([^`]+::test_\w+)`", law)
    assert named, "name one law, as `test_file.py::test_name`"
    file, _, name = find_test(named[1], files_of_tests(ROOT)).partition("::")
    assert not re.search(r"skip|xfail|mark\.(slow|gpu)", decorators(file, name))
