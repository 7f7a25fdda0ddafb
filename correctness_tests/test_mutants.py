"""The mutants keep up with the code: each still finds what it breaks, and the laws that should notice."""

from __future__ import annotations

import pytest

from correctness_tests.mutants import EVERY, ROOT, mutated


@pytest.mark.parametrize("mutant", EVERY, ids=lambda mutant: mutant.name)
def test_a_mutant_finds_its_text_once_and_its_laws(mutant):
    text = (ROOT / "xenc" / mutant.file).read_text()
    assert mutated(mutant, text) != text
    for law in mutant.tests:
        file, _, name = law.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / "correctness_tests" / file).read_text()


def test_no_two_mutants_have_one_name():
    names = [mutant.name for mutant in EVERY]
    assert len(set(names)) == len(names)
