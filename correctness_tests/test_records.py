"""records/*.yml: what each claimed gain of speed rests on, and that the README claims none without."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDS = {
    file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(ROOT.glob("records/*.yml"))
}
FIELDS = {
    "claim": str, "pages": list, "figures": list, "statistic": str, "spread": str, "samples": (str, dict),
    "machine": str, "versions": (str, dict), "commit": str, "command": str, "gate": str,
}  # fmt: skip


def table_rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]


def headline_figures() -> set[str]:
    """Of the README's first table, and of the paragraph under it what is said of a GPU."""
    table, below = re.search(r"^(\| xenc in .*?\n)\n(.*?)\n\n", README, re.MULTILINE | re.DOTALL).groups()
    cells = {cell for row in table_rows(table)[2:] for cell in row[1:]}
    return cells | set(re.findall(r"\b0\.\d\d\b", below.partition("**GPU**")[2]))


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_has_every_field_and_no_other(record):
    assert set(record) == set(FIELDS)
    for name, kind in FIELDS.items():
        assert isinstance(record[name], kind), name
        assert record[name], name
    for figure in record["figures"]:
        assert {"of", "figure", "n"} <= set(figure) <= {"of", "figure", "n", "spread"}
        assert isinstance(figure["n"], int)
        assert figure["n"] > 0


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_the_figures_of_a_record_stand_on_each_of_its_pages(record):
    for page in record["pages"]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for figure in record["figures"]:
            assert re.search(rf"(?<![\d.,]){re.escape(str(figure['figure']))}(?!\d)", text), (page, figure)


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_the_commit_of_a_record_stands_on_one_of_its_pages(record):
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in record["pages"]]
    for commit in re.findall(r"\b[0-9a-f]{7}\b", str(record["commit"])):
        assert any(f"`{commit}`" in text for text in texts), commit


def test_each_headline_figure_of_the_readme_has_a_record():
    recorded = {
        str(figure["figure"])
        for record in RECORDS.values()
        if "README.md" in record["pages"]
        for figure in record["figures"]
    }
    assert len(headline_figures()) == 8
    assert headline_figures() <= recorded


def test_the_readme_gives_the_rounds_that_its_records_have():
    rounds = [int(n) for n in re.findall(r"\d+", README.partition("Medians of ")[2].partition(" rounds")[0])]
    for system in ("sentence-transformers", "openvino"):
        assert [each["n"] for each in RECORDS[f"cpu-bfloat16-over-{system}"]["figures"]] == rounds


def test_the_page_of_records_explains_each_field():
    page = (ROOT / "records" / "README.md").read_text(encoding="utf-8")
    assert {row[0].strip("`") for row in table_rows(page)[2:]} == set(FIELDS)
