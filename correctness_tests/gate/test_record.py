"""From a run to the stored baseline: what is refused, what is written, and what the reviewer is told."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from xenc.gate.errors import BaselineError
from xenc.gate.stored.baseline import Baseline, Entry, Session, baseline_path, read_baseline, write_baseline
from xenc.gate.stored.record import changes, store

A, B = "t.py::a", "t.py::b"


def session(level=1.0, names=(A, B), entry=None, **more):
    """One session; `entry` are fields of its entries that differ."""
    seconds = (level, 2 * level, 3 * level)
    measured = Entry(**{
        "protocol": {"dtype": "float32"}, "margin": 0.15, "exact": {"graphs": 1}, "reference": "plain",
        "sessions": (Session(seconds=seconds, reference_seconds=(2.0, 4.0, 6.0)),), **(entry or {}),
    })  # fmt: skip
    described = {"device": "a CPU", "versions": {"torch": "2.13"}, "commit": "1234567890abcdef", **more}
    return Baseline(entries=dict.fromkeys(names, measured), **described)


@pytest.fixture
def record(tmp_path):
    """Stores sessions one after the other; what the reviewer is told of the last."""
    return lambda *sessions: ["\n".join(store(each, tmp_path)) for each in sessions][-1]


@pytest.fixture
def stored(tmp_path):
    return baseline_path(tmp_path, "a CPU")


def row(printed, name):
    (line,) = [line for line in printed.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_sessions_of_one_commit_become_one_baseline_of_their_medians_and_drift(record, stored):
    printed = record(session(1.0), session(1.1), session(1.3))
    assert "2 benchmarks, 3 sessions, in" in printed
    written = read_baseline(stored)
    assert (written.sessions, written.commit) == (3, "1234567890abcdef")
    entry = written.entries[A]
    assert entry.seconds == (1.1, 2.2, pytest.approx(3.3))
    assert entry.spread == pytest.approx(0.132, abs=0.001)
    assert entry.speedup == pytest.approx(2 / 1.1)
    assert entry.exact == {"graphs": 1}


def test_the_reviewer_is_told_what_changes(record):
    record(session(1.0, names=(A, "t.py::old")))
    printed = record(session(1.1, names=(A, "t.py::new"), entry={"exact": {"graphs": 2}}))
    assert row(printed, "a")[1:4] == ["2", "2.2", "+10.0%"]
    assert row(printed, "a")[4:] == ["unknown", "2.00x -> 1.82x", "15%", "graphs 1 -> 2"]
    assert row(printed, "new")[1:4] == ["", "2.2", "new"]
    assert row(printed, "old")[1:4] == ["2", "", "removed"]
    assert "2 benchmarks, 1 session, in" in printed


def test_a_change_of_protocol_is_no_change_of_speed():
    other = session(entry={"protocol": {"dtype": "bfloat16"}})
    assert row(changes(session(), other), "a")[3] == "another protocol"


def test_a_margin_that_a_reviewer_set_is_kept_and_counts_that_differ_are_pointed_out(record, stored):
    record(session())
    stored.write_text(stored.read_text().replace('"margin":0.15', '"margin":0.04', 1))
    printed = record(session(entry={"exact": {"graphs": 3}}))
    assert "t.py::a: graphs differs between sessions (1, 3); the larger is stored" in printed
    assert read_baseline(stored).entries[A].exact == {"graphs": 3}
    assert "a new baseline begins" in record(session(commit="another"))
    assert [entry.margin for entry in read_baseline(stored).entries.values()] == [0.04, 0.15]


ONE_ROUND = {"sessions": (Session(seconds=(1.0,), reference_seconds=(2.0,)),)}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"commit": "another"}, "its commit is another, not 1234567890abcdef"),
        ({"versions": {"torch": "2.14"}}, "its versions is {'torch': '2.14'}, not {'torch': '2.13'}"),
        ({"names": (A,)}, "only one of them has t.py::b"),
        ({"names": (A, B, "t.py::c")}, "only one of them has t.py::c"),
        ({"entry": {"protocol": {"dtype": "bfloat16"}}}, "t.py::a is measured as {'dtype': 'bfloat16'"),
        ({"entry": ONE_ROUND}, "'rounds': 1"),
        ({"entry": {"reference": "another"}}, "'reference': 'another'"),
    ],
)
def test_a_session_that_measured_something_else_begins_a_new_baseline_and_says_why(
    record, stored, other, why
):
    record(session(), session())
    printed = record(session(**other))
    assert "a new baseline begins, since " in printed
    assert why in printed
    assert read_baseline(stored).sessions == 1
    assert "a new baseline begins" not in record(session(**other))
    assert read_baseline(stored).sessions == 2


def test_a_damaged_baseline_is_replaced_and_another_devices_is_not(record, stored):
    record(session())
    stored.write_text(stored.read_text()[:50])
    assert "the stored baseline is ignored" in record(session())
    write_baseline(stored, session(device="A-CPU"))
    with pytest.raises(BaselineError, match="belongs to A-CPU"):
        record(session())
    assert read_baseline(stored).device == "A-CPU"


def test_sessions_that_are_stored_at_once_are_all_kept(tmp_path, stored):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: store(session(), tmp_path), range(8)))
    assert read_baseline(stored).sessions == 8


def test_a_file_without_benchmarks_any_more_was_read(suite, run_gate, pytester, commit):
    other = pytester.path / "test_other.py"
    other.write_text((pytester.path / "test_timed.py").read_text())
    commit()
    assert run_gate("--gate-record")[0] == 0
    other.write_text("def test_nothing():\n    pass\n")
    commit()
    status, output, _ = run_gate("--gate-record")
    assert status == 0, output
    assert "removed" in output


def test_each_recording_adds_a_session_and_the_baseline_judges(suite, run_gate):
    for number in (1, 2):
        status, output, _ = run_gate("--gate-record")
        assert status == 0, output
        assert f"recorded 2 benchmarks, {number} session" in output
    status, output, _ = run_gate("--benchmark-compare")
    assert status == 0, output
    assert "baseline of 2 sessions" in output


@pytest.mark.parametrize("what", ["test_timed.py", "test_new.py", ".git"], ids=["changed", "new", "no git"])
def test_a_tree_that_is_no_clean_revision_is_refused_before_anything_is_measured(
    suite, run_gate, pytester, what
):
    with pytester.path.joinpath("test_timed.py" if what == ".git" else what).open("a") as file:
        file.write("\nraise SystemExit('it ran')\n")
    if what == ".git":
        pytester.path.joinpath(".git").rename(pytester.path / "not.git")
    status, output, _ = run_gate("--gate-record")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert ("no git revision" if what == ".git" else "commit or stash") in output
    assert "it ran" not in output
    assert not list(pytester.path.rglob("*.json"))


def test_a_changed_baseline_does_not_make_a_tree_dirty_and_recording_prints_the_table(
    recorded, run_gate, suite
):
    suite(work=8)  # commits the baseline too
    recorded.write_text(recorded.read_text() + "\n")
    status, output, _ = run_gate("--gate-record")
    assert status == 0
    assert "+100.0%" in output


def test_a_tree_that_changes_during_the_measurement_is_not_recorded(suite, run_gate, pytester, commit):
    test = pytester.path / "test_timed.py"
    test.write_text(test.read_text() + "\n    open('new.py', 'w').close()\n")
    commit()
    status, output, _ = run_gate("--gate-record")
    assert status == 1
    assert "the checkout changed during the measurement" in output
    assert not list(pytester.path.glob(".benchmarks/*.json"))


def test_a_full_disk_ends_the_run_red_with_one_line_and_the_old_baseline(
    recorded, run_gate, pytester, monkeypatch
):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    before = recorded.read_text()
    monkeypatch.setattr("xenc.gate.whole_file.os.fsync", mock.Mock(side_effect=full))
    status, output, _ = run_gate("--gate-record")
    assert status == 1
    assert "cannot be written (No space left on device)" in output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    assert recorded.read_text() == before
    assert [path.name for path in pytester.path.rglob("*.partial")] == []


SKIPPING = """
import pytest
pytest_plugins = ("xenc.gate",)
def pytest_runtest_setup(item):
    if {name!r} in item.nodeid:
        pytest.skip("not today")
"""


@pytest.mark.parametrize(
    ("changes", "skipped", "arguments", "why"),
    [
        ({"recompiles": 1}, "none", (), "a test failed"),
        ({}, "none", ("-k", "first"), "the run left out test_timed.py::test_sum[second]"),
        ({}, "first", (), "the run left out test_timed.py::test_sum[first]"),
        ({}, "none", ("--benchmark-disable",), "nothing was measured"),
        ({}, "none", ("--benchmark-skip",), "nothing was measured"),
    ],
    ids=["failed", "partial", "one skipped", "disabled", "all skipped"],
)
def test_a_run_that_fails_or_leaves_something_out_never_becomes_the_baseline(
    recorded, run_gate, suite, pytester, changes, skipped, arguments, why
):
    before = recorded.read_text()
    pytester.makeconftest(SKIPPING.format(name=skipped))
    suite(**changes)
    status, output, _ = run_gate(*arguments, "--gate-record")
    assert status == 1
    assert f"baseline NOT recorded: {why}" in output
    assert recorded.read_text() == before


def test_an_expected_failure_a_file_that_is_not_read_and_single_tests_never_become_the_baseline(
    recorded, run_gate, suite, pytester, commit
):
    before, test = recorded.read_text(), pytester.path / "test_timed.py"
    suite(recompiles=1)
    test.write_text(test.read_text().replace("@pytest.mark.cpu", "@pytest.mark.xfail\n@pytest.mark.cpu"))
    commit()
    status, output, _ = run_gate("--gate-record")
    assert status == 1
    assert "broke a law that no baseline may hold" in output
    suite()
    other = pytester.path / "test_other.py"
    other.write_text(test.read_text())
    commit()
    for arguments, exit_status, said in (
        (("test_other.py", "--gate-record"), 1, "the run left out test_timed.py::test_sum[first]"),
        (("test_timed.py::test_sum[first]", "--gate-record"), 4, "give files or folders, not single tests"),
    ):
        status, output, _ = run_gate(*arguments)
        assert status == exit_status
        assert said in output
    assert recorded.read_text() == before
