"""The faults that are put in by hand keep up with the code; `python -m perf_tests.by_hand` measures them."""

from __future__ import annotations

import pytest

from perf_tests.against import REPOSITORY
from perf_tests.by_hand import FAULTS, Fault, edited


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_finds_its_text_once_and_what_it_makes_of_it_compiles(fault):
    assert fault.file.startswith("xenc/")
    text = edited(fault, REPOSITORY)
    assert text != (REPOSITORY / fault.file).read_text(encoding="utf-8")
    compile(text, fault.file, "exec")


@pytest.mark.parametrize(("old", "times"), [("three", 0), ("one", 2)])
def test_a_text_that_is_not_there_once_is_refused(tmp_path, old, times):
    (tmp_path / "file.py").write_text("one, two, one", encoding="utf-8")
    with pytest.raises(LookupError, match=f"it: '{old}' occurs {times} times in file.py"):
        edited(Fault("it", "file.py", old, "two"), tmp_path)


def test_faults_have_names_of_their_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
