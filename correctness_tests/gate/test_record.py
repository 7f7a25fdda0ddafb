"""From sessions to a baseline: what is refused, what is written, and what the reviewer is told."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from unittest import mock

import pytest

from xenc.gate.stored.baseline import Baseline, baseline_path, read_baseline, write_baseline
from xenc.gate.stored.entry import Entry, Speedup
from xenc.gate.stored.record import changes, main

COMMIT = "1234567890abcdef"
A, B, C = "t.py::a", "t.py::b", "t.py::c"


def session(level=1.0, names=(A, B), exact=None, entry=None, **more):
    """One session; `entry` are fields of its entries that differ."""
    measured = Entry(
        seconds=(level, 2 * level, 3 * level), protocol={"dtype": "float32"}, margin=0.15, spread=None,
        speedup=Speedup(reference="plain", times=2 / level, spread=None), exact=exact or {"graphs": 1},
    )  # fmt: skip
    described = {"device": "a CPU", "versions": {"torch": "2.13"}, "commit": COMMIT, "sessions": 1, **more}
    return Baseline(entries=dict.fromkeys(names, replace(measured, **(entry or {}))), **described)


@pytest.fixture
def record(tmp_path, capsys):
    """`python -m xenc.gate.stored.record` on files: its exit status and what it printed."""

    def run(*paths):
        status = main([*map(str, paths), "--gate-baselines", str(tmp_path / "stored")])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.fixture
def merge(tmp_path, record):
    """The same on sessions."""

    def run(*sessions):
        paths = [tmp_path / f"{number}.json" for number in range(len(sessions))]
        for path, each in zip(paths, sessions, strict=True):
            write_baseline(path, each)
        return record(*paths)

    return run


@pytest.fixture
def stored(tmp_path):
    return baseline_path(tmp_path / "stored", "a CPU")


def row(printed, name):
    (line,) = [line for line in printed.splitlines() if f"t.py::{name} " in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_sessions_become_one_baseline_of_their_medians_and_drift(merge, stored):
    status, printed = merge(session(1.0), session(1.1), session(1.3))
    assert status == 0, printed
    written = read_baseline(stored)
    assert (written.sessions, written.commit) == (3, COMMIT)
    entry = written.entries[A]
    assert entry.seconds == (1.1, 2.2, 3.3)
    assert entry.spread == pytest.approx(0.132, abs=0.001)
    assert entry.speedup.times == pytest.approx(2 / 1.1, rel=1e-5)
    assert entry.exact == {"graphs": 1}


def test_the_reviewer_is_told_what_changes(merge):
    merge(session(1.0, names=(A, "t.py::old")))
    status, printed = merge(session(1.1, names=(A, "t.py::new"), exact={"graphs": 2}))
    assert status == 0
    assert row(printed, "a")[1:4] == ["2", "2.2", "+10.0%"]
    assert row(printed, "a")[4:] == ["unknown", "2.00x -> 1.82x", "15%", "graphs 1 -> 2"]
    assert row(printed, "new")[1:4] == ["", "2.2", "new"]
    assert row(printed, "old")[1:4] == ["2", "", "removed"]
    assert "2 benchmarks, 1 session, in" in printed


def test_a_change_of_protocol_is_no_change_of_speed():
    other = session(entry={"protocol": {"dtype": "bfloat16"}})
    assert row(changes(session(), other), "a")[3] == "another protocol"


def test_a_margin_that_a_reviewer_set_is_kept_and_counts_that_differ_are_pointed_out(merge, stored):
    merge(session())
    stored.write_text(stored.read_text().replace('"margin": 0.15', '"margin": 0.04', 1))
    _, printed = merge(session(exact={"graphs": 1}), session(exact={"graphs": 3}))
    assert [entry.margin for entry in read_baseline(stored).entries.values()] == [0.04, 0.15]
    assert "t.py::a: graphs differs between sessions (1, 3); the largest is stored" in printed
    assert read_baseline(stored).entries[A].exact == {"graphs": 3}


@pytest.mark.parametrize(
    ("sessions", "named"),
    [
        ([session(commit=COMMIT + "+dirty")], "commit or stash"),
        ([session(commit="unknown")], "no git revision"),
        ([session(sessions=2, entry={"spread": 0.1, "speedup": None})], "already holds 2 sessions"),
        ([session(), session(commit="another")], "differ in commit"),
        ([session(), session(device="a GPU")], "differ in device"),
        ([session(), session(versions={"torch": "2.14"})], "differ in versions"),
        ([session(), session(names=(A,))], "t.py::b in one only"),
        ([session(), session(names=(A, B, C))], "t.py::c in one only"),
        *(
            ([session(), session(entry=other)], "differ in protocol of t.py::a")
            for other in ({"protocol": {"dtype": "bfloat16"}}, {"seconds": (1.0, 1.0)}, {"speedup": None})
        ),
    ],
)
def test_sessions_that_do_not_belong_together_are_refused_and_nothing_is_changed(
    merge, stored, sessions, named
):
    merge(session())
    before = stored.read_text()
    status, printed = merge(*sessions)
    assert status == 1
    assert "baseline NOT recorded" in printed
    assert named in printed
    assert stored.read_text() == before


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_session_given_twice_or_cut_short_is_refused(tmp_path, record, content):
    write_baseline(tmp_path / "1.json", session())
    if content is not None:
        (tmp_path / "1.json").write_text(content)
    again = [tmp_path / "." / "1.json"] if content is None else []
    status, printed = record(tmp_path / "1.json", *again)
    assert status == 1
    assert ("given twice" if content is None else "1.json") in printed
    assert not (tmp_path / "stored").exists()


def test_a_damaged_baseline_is_replaced_and_another_devices_is_not(merge, stored):
    merge(session())
    stored.write_text(stored.read_text()[:50])
    status, printed = merge(session())
    assert status == 0
    assert "the stored baseline is ignored" in printed
    write_baseline(stored, session(device="A-CPU"))
    status, printed = merge(session())
    assert status == 1
    assert "belongs to A-CPU" in printed
    assert read_baseline(stored).device == "A-CPU"


def test_sessions_are_written_then_merged_then_judged_by(suite, run_gate, pytester, capsys):
    for number in range(2):
        status, output, _ = run_gate("--gate-session", f"{number}.json")
        assert status == 0, output
        assert f"wrote 2 benchmarks to the session {number}.json" in output
    assert not list(pytester.path.glob(".benchmarks/*.json"))
    assert main(["0.json", "1.json"]) == 0
    status, output, _ = run_gate("--benchmark-compare")
    assert status == 0, output
    assert "baseline of 2 sessions" in output


WAYS = pytest.mark.parametrize("how", [["--gate-record"], ["--gate-session", "s.json"]])


@WAYS
@pytest.mark.parametrize("what", ["test_timed.py", "test_new.py", ".git"], ids=["changed", "new", "no git"])
def test_a_tree_that_is_no_clean_revision_is_refused_before_anything_is_measured(
    suite, run_gate, pytester, how, what
):
    with pytester.path.joinpath("test_timed.py" if what == ".git" else what).open("a") as file:
        file.write("\nraise SystemExit('it ran')\n")
    if what == ".git":
        pytester.path.joinpath(".git").rename(pytester.path / "not.git")
    status, output, _ = run_gate(*how)
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


@WAYS
def test_a_full_disk_ends_the_run_red_with_one_line_and_the_old_baseline(
    recorded, run_gate, pytester, monkeypatch, how
):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    before = recorded.read_text()
    monkeypatch.setattr("xenc.gate.whole_file.os.fsync", mock.Mock(side_effect=full))
    status, output, _ = run_gate(*how)
    assert status == 1
    assert "cannot be written (No space left on device)" in output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    assert recorded.read_text() == before
    assert [path.name for path in pytester.path.rglob("*.partial")] == []
    assert not pytester.path.joinpath("s.json").exists()


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
