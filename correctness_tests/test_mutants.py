"""The mutants keep up with the code: each still finds what it breaks, and the laws that should notice."""

from __future__ import annotations

import ast

import pytest

from correctness_tests.mutants import ROOT, mutated, places_of
from correctness_tests.mutations import EVERY, Mutant
from correctness_tests.mutations.find import files_of_tests, find_test, places


def test_every_mutant_finds_its_text_once_and_its_laws():
    among, files = places_of(ROOT), files_of_tests(ROOT)
    problems = []
    for mutant in EVERY:
        try:
            path, text = mutated(mutant, among)
            if path.suffix == ".py":
                ast.parse(text, mutant.name)  # a mutant should answer wrongly, not fail to import
            for law in mutant.tests:
                find_test(law, files)
        except (LookupError, SyntaxError) as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems)


def test_every_mutant_changes_something_has_laws_and_a_name_of_its_own():
    assert all(mutant.old != mutant.new and mutant.tests for mutant in EVERY)
    names = [mutant.name for mutant in EVERY]
    assert len(set(names)) == len(names)


ENGINE = """\
SIZE: int = 1


class Engine:
    power = 2

    @property
    def start(self):
        def spark():
            return 3

        return spark()


def main():
    return Engine().start + 4
"""


@pytest.fixture
def small(tmp_path):
    """Two modules that both define `main`, and a file of C++."""
    for path, text in (
        ("engine.py", ENGINE),
        ("room/cli.py", "def main():\n    return 5\n"),
        ("room/engine.cpp", "int size = 6;\n"),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("where", "old", "file"),
    [
        ("SIZE", "1", "engine.py"),
        ("Engine", "2", "engine.py"),
        ("Engine.power", "2", "engine.py"),
        ("Engine.start", "@property", "engine.py"),
        ("Engine.start", "3", "engine.py"),
        ("main", "4", "engine.py"),  # the one `main` in which it stands
        ("cli:main", "return", "room/cli.py"),
        ("room/cli:main", "return", "room/cli.py"),
        ("engine.cpp", "6", "room/engine.cpp"),
    ],
)
def test_a_mutant_changes_the_definition_that_it_names(small, where, old, file):
    path, text = mutated(Mutant("one", where, old, "<new>", ()), places(small))
    assert path == small / file
    assert text == path.read_text().replace(old, "<new>", 1)
    assert text.count("<new>") == 1


@pytest.mark.parametrize(
    ("where", "old", "problem"),
    [
        ("main", "return", "'return' stands 2 times in what is called 'main': engine:main in .*, cli:main"),
        ("Engine.start", "return", "'return' stands 2 times in what is called 'Engine.start': engine:Engine"),
        ("cli:main", "4", "'4' stands 0 times in what is called 'cli:main'.* stands once in: engine:main in"),
        ("Engine.begin", "3", "nothing is called 'Engine.begin'.* '3' stands once in: .*engine:Engine.start"),
        ("start", "3", r"nothing is called 'start' \(names like it: engine:Engine.start in"),
        ("room:main", "5", "nothing is called 'room:main'.* '5' stands once in: cli:main in"),
    ],
)
def test_what_is_not_found_is_told_with_what_may_have_been_meant(small, where, old, problem):
    with pytest.raises(LookupError, match=f"^one: {problem}"):
        mutated(Mutant("one", where, old, "<new>", ()), places(small))


def test_a_test_is_found_in_whichever_folder_it_stands(tmp_path):
    for folder, name in (("gate", "test_that"), ("text", "test_it")):
        (tmp_path / "correctness_tests" / folder).mkdir(parents=True)
        (tmp_path / "correctness_tests" / folder / "test_both.py").write_text(f"def {name}(): ...\n")
    gate, text = files = files_of_tests(tmp_path)
    assert find_test("gate/test_both.py", files) == str(gate)
    assert find_test("test_both.py::test_it[a-b]", files) == f"{text}::test_it[a-b]"
    with pytest.raises(LookupError, match=f"'test_both.py' is to be in one file .* 2 of: {gate}, {text}"):
        find_test("test_both.py", files)
    with pytest.raises(LookupError, match=r"'test_both.py::test_i' is to be in one file and is in 0 of: "):
        find_test("test_both.py::test_i", files)
