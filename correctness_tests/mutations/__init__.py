"""Small ways to break xenc, one table of rows for each room of the library, and one for the examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from correctness_tests.mutations import (
    batching,
    cluster,
    commands,
    compiling,
    examples,
    files,
    frameworks,
    gate,
    kernels,
    layouts,
    models,
    profiling,
    serving,
    text,
)

TABLES = (
    text, batching, models, kernels, compiling, serving, layouts, frameworks, files, gate, profiling,
    commands, cluster, examples,
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """`old`, a text of the definition called `where`, becomes `new`, and some of `tests` should fail."""

    name: str
    where: str
    old: str
    new: str
    tests: tuple[str, ...]


def read(rows: Iterable[str | tuple[str, str, str, str]]) -> Iterator[Mutant]:
    """The mutants of a table, in which a text names the tests that should notice the rows after it."""
    tests: tuple[str, ...] = ()
    for row in rows:
        if isinstance(row, str):
            tests = tuple(row.split())
        else:
            yield Mutant(*row, tests)


EVERY = tuple(mutant for table in TABLES for mutant in read(table.ROWS))
