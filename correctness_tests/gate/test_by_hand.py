"""The faults that are put in by hand keep up with the code; `python -m perf_tests.by_hand` measures them."""

from __future__ import annotations

import pytest

from correctness_tests.mutants import ROOT, mutated
from correctness_tests.mutations import Mutant
from correctness_tests.mutations.find import places
from perf_tests.by_hand import FAULTS

AMONG = places(ROOT / "xenc")


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_finds_its_text_once_and_what_it_makes_of_it_compiles(fault):
    path, text = mutated(fault, AMONG)
    assert path.is_relative_to(ROOT / "xenc")
    assert text != path.read_text(encoding="utf-8")
    compile(text, path, "exec")


@pytest.mark.parametrize(("old", "times"), [("three", 0), ("one", 2)])
def test_a_text_that_is_not_there_once_is_refused(tmp_path, old, times):
    (tmp_path / "file.py").write_text("it = 'one, two, one'\n", encoding="utf-8")
    with pytest.raises(LookupError, match=f"a fault: '{old}' stands {times} times in what is called 'it'"):
        mutated(Mutant("a fault", "it", old, "two", ()), places(tmp_path))


def test_faults_have_names_of_their_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
