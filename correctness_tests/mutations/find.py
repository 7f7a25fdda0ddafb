"""Find what a mutant breaks, and the tests that should notice, by name: files move, names stay."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

WHOLE_FILES = (".cpp", ".h", ".json")
MOST_LISTED = 8


@dataclass(frozen=True)
class Place:
    """A definition, or a whole file that is not Python; `source` begins at character `start` of the file."""

    name: str
    path: Path
    start: int
    source: str

    def __str__(self) -> str:
        return f"{self.path.stem}:{self.name} in {self.path}"


def places(directory: Path) -> list[Place]:
    """All that a mutant may name: functions, classes, methods, assigned names, files of C++ and JSON."""
    found: list[Place] = []
    for path in sorted(directory.rglob("*.*")):
        if path.suffix == ".py":
            found += _definitions(path)
        elif path.suffix in WHOLE_FILES:
            found.append(Place(path.name, path, 0, path.read_text()))
    return found


def _definitions(path: Path) -> Iterable[Place]:
    text = path.read_text()
    lines = text.split("\n")
    cu_seqlens = [0, *accumulate(len(line) + 1 for line in lines)]
    defined = {}  # of a name that is defined twice (an overload, a setter) the last definition counts
    for name, node in _named(ast.parse(text).body):
        decorators = getattr(node, "decorator_list", [])
        first = min(each.lineno for each in (node, *decorators)) - 1
        defined[name] = Place(name, path, cu_seqlens[first], "\n".join(lines[first : node.end_lineno]))
    return defined.values()


def _named(body: Sequence[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name):
                yield prefix + name, node
            case ast.ClassDef(name=name, body=inner):
                yield prefix + name, node
                yield from _named(inner, f"{prefix}{name}.")
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name, node


def find_place(where: str, old: str, among: Sequence[Place]) -> Place:
    """The place called `where`, or of several that are called so the only one in which `old` stands.

    `where` is a name ("Class.method", "function", "CONSTANT", "file.cpp"), or "module:name" where the name
    alone does not tell enough.

    Raises:
        LookupError: `old` does not stand there exactly once; it says where it does.
    """
    module, _, name = where.rpartition(":")
    called = [at for at in among if at.name == name and (not module or at.path.match(f"{module}.py"))]
    times = sum(at.source.count(old) for at in called)
    if times == 1:
        return next(at for at in called if old in at.source)
    if not called:
        alike = difflib.get_close_matches(name, {at.name for at in among})
        like = _listed([at for at in among if at.name in alike or at.name.endswith(f".{name}")])
        problem = f"nothing is called {where!r} (names like it: {like})"
    else:
        problem = f"{old!r} stands {times} times in what is called {where!r}: {_listed(called)}"
    holding = [at for at in among if at.source.count(old) == 1]
    raise LookupError(f"{problem}; {old!r} stands once in: {_listed(holding)}")


def files_of_tests(tree: Path) -> list[Path]:
    return sorted((tree / "correctness_tests").rglob("test_*.py"))


def find_test(test: str, files: Sequence[Path]) -> str:
    """What pytest runs for "test_file.py", "folder/test_file.py" or "test_file.py::test_name[parameter]".

    Raises:
        LookupError: no file of that name holds such a test, or several do.
    """
    file, colons, name = test.partition("::")
    called = [path for path in files if path.name == Path(file).name and path.match(file)]
    defined = f"def {name.partition('[')[0]}(" if name else "def test_"
    found = [path for path in called if defined in path.read_text()]
    if len(found) == 1:
        return f"{found[0]}{colons}{name}"
    raise LookupError(f"{test!r} is to be in one file and is in {len(found)} of: {_listed(called)}")


def _listed(found: Sequence[object]) -> str:
    more = f", and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return ", ".join(map(str, found[:MOST_LISTED])) + more or "nothing"
