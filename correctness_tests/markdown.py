"""Markdown tables, read back."""

from __future__ import annotations


def rows_of(table: str) -> list[dict[str, str]]:
    """The rows of a Markdown table, by column."""
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]
