"""The paired gate when it cannot measure: it says why, is not green, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from unittest import mock

import pytest

from correctness_tests.gate.conftest import NO_PLUGINS
from correctness_tests.gate.test_campaign import alive, eventually
from xenc.gate.paired.campaign import Campaign

HANGING = "import time\ntime.sleep(600)"
REPOSITORY = Path(__file__).parents[2]
NO_IMPORT = "import no_such_module"
PAIRS = {"test_pair[first]", "test_pair[second]"}


def assert_no_traceback(output):
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output


@pytest.fixture
def stopped(against, compare):
    """Runs a gate that must not measure; its output. No test may pass and nothing may be left."""

    def run(*arguments: str, ref: str = "base") -> str:
        before = against.state()
        status, output, failures = compare(*arguments, ref=ref)
        assert status == 1, output
        assert len(failures) == 2
        assert all("NOT MEASURED: " in message for message in failures.values())
        assert "gate NOT GREEN: 2 NOT MEASURED" in output
        assert_no_traceback(output)
        assert "warnings summary" not in output
        assert against.state() == before
        assert against.left() == []
        assert not any(alive(pid) for pid in against.pids)
        return output

    return run


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"package": ""}, "write gate_package = NAME into pytest's settings"),
        ({"package": "nowhere"}, "has no nowhere/"),
    ],
)
@pytest.mark.parametrize("accepted", [False, True], ids=["", "accepted unpaired"])
def test_settings_that_are_missing_or_wrong_are_named(against, stopped, compare, settings, said, accepted):
    against.settings(**settings)
    if not accepted:
        assert said in stopped()
    else:
        status, output, _ = compare("--accept-unpaired", "why not")
        assert status == pytest.ExitCode.USAGE_ERROR
        assert said in output
        assert_no_traceback(output)
    assert against.pids == []


@pytest.mark.parametrize("ref", ["nothing-like-it", "--upload-pack=x", "", "empty"])
def test_a_revision_that_is_none_or_lacks_the_package_is_not_measured(against, stopped, ref):
    against.git("rm", "-r", "--quiet", "made")
    against.git("commit", "--quiet", "-m", "x")
    against.git("tag", "empty")
    against.head()
    said = "has no made/: choose one that has it" if ref == "empty" else "commit"
    assert said in stopped(f"--against={ref}")
    assert against.pids == []


def test_a_revision_that_cannot_be_imported_is_not_measured(against, stopped):
    against.base(NO_IMPORT)
    output = stopped()
    assert "the base revision cannot be imported (No module named 'no_such_module')" in output
    assert "--accept-unpaired REASON" in output
    assert len(against.pids) == 1


def test_a_measuring_process_of_its_own_is_pytest_again_with_the_same_settings(against, stopped, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (against.path / "conftest.py").write_text('pytest_plugins = ("xenc.gate",)')
    against.pairs(body="gate.measure(gate.package.later, [0])")
    assert "the base revision cannot run test_pair[first]: AttributeError: module 'made_base'" in stopped()


@pytest.mark.parametrize("recorded", [True, False])
def test_with_an_accepted_reason_the_stored_baseline_judges_instead(against, compare, monkeypatch, recorded):
    against.base(NO_IMPORT)
    if recorded:
        against.record()
    before = against.state()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(against.path / "summary.md"))
    status, output, failures = compare("--accept-unpaired", "the base needs an old torch")
    assert status == (0 if recorded else 1), output
    assert set(failures) == {"test_ordinary"}
    assert ("gate GREEN: 1 PASS" if recorded else "gate NOT GREEN: 1 NEW") in output
    for said in (output, (against.path / "summary.md").read_text()):
        assert "NOT PAIRED: judged by the stored baseline alone" in said
        assert "No module named 'no_such_module'" in said
        assert "Accepted: the base needs an old torch" in said
    assert against.state() == before
    assert len(against.pids) == 1


MEASURED = "{marks}\n@pytest.mark.cpu\ndef test_at_once(gate):\n    gate.measure(sum, [[1, 2]])\n"


@pytest.mark.parametrize("marks", ["import pytest", "import pytest\n@pytest.mark.benchmark(group='mine')"])
def test_a_test_that_is_no_pair_alone_is_then_measured_at_once(against, compare, marks):
    against.base(NO_IMPORT)
    (against.path / "test_measured.py").write_text(MEASURED.format(marks=marks))
    status, output, failures = compare("--accept-unpaired", "the base needs an old torch")
    assert status == 1
    assert set(failures) == {"test_at_once", "test_ordinary"}
    assert "NEW: this device has no baseline" in failures["test_at_once"]
    assert "gate NOT GREEN: 2 NEW" in output


def test_what_the_run_leaves_out_is_then_missed_as_in_any_comparison(against, compare):
    against.base(NO_IMPORT)
    against.record()
    (against.path / "test_measured.py").write_text(MEASURED.format(marks="import pytest"))
    status, _, failures = compare("--accept-unpaired", "why not", "-k", "not ordinary")
    assert status == 1
    assert "NOT MEASURED: it is in the baseline, but this run left it out" in failures["test_ordinary"]


def test_an_accepted_reason_that_was_not_needed_is_reported(against, compare):
    status, output, failures = compare("--accept-unpaired", "why not")
    assert status == 0, output
    assert set(failures) == PAIRS
    assert "--accept-unpaired was not needed" in output
    assert len(against.pids) == 1 + 5


def test_an_accepted_reason_does_not_excuse_a_missing_revision(against, compare):
    status, output, _ = compare("--accept-unpaired", "why not", ref="nothing-like-it")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "has no commit 'nothing-like-it'" in output
    assert_no_traceback(output)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('the disk is on fire'); sys.exit(3)", "ended with exit status 3"),
        ("import os; print('the disk is on fire', flush=True); os._exit(0)", "ended without a result"),
        (
            "import json, os, sys; print('the disk is on fire', flush=True)\n"
            "found = {'configurations': {'test_pairs.py::test_pair[first]': {}}}\n"
            "open(sys.argv[2], 'w').write(json.dumps(found)); os._exit(0)",
            "a measuring process left out test_pairs.py::test_pair[second]",
        ),
        (HANGING, "hung, and was killed after 1 s"),
    ],
    ids=["exits", "no result", "a test is missing", "hangs"],
)
def test_a_measuring_process_that_fails_is_reported_and_not_repeated(against, stopped, code, said):
    against.settings(timeout_s=1 if code == HANGING else 60)
    against.head(code)
    output = stopped()
    assert said in output
    assert "status" not in said or "the disk is on fire" in output
    assert len(against.pids) == 1


def test_of_two_gates_the_second_does_not_measure(against, stopped):
    with Campaign(["unused"], timeout_s=1, lock=against.temporary / "lock") as first:
        output = stopped()
        assert f"another gate is measuring on this machine (process {os.getpid()}, since" in output
        assert first._lock.is_locked
        assert str(os.getpid()) in (against.temporary / "lock").read_text()
    assert not first._lock.is_locked
    assert against.pids == []


def test_ctrl_c_ends_the_run_and_all_it_started(against, pytester):
    against.record()
    against.head(HANGING)
    before = against.state()

    def interrupt():
        eventually(lambda: against.pids)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    arguments = ("-m", "cpu", *NO_PLUGINS, "--against", "base", "--benchmark-compare")
    run = pytester.runpytest_inprocess(*arguments, no_reraise_ctrlc=True)
    thread.join()
    assert run.ret == pytest.ExitCode.INTERRUPTED
    assert "gate NOT GREEN: nothing was measured" in run.outlines
    (child,) = against.pids
    eventually(lambda: not alive(child))
    assert against.left() == []
    assert against.state() == before


UNWRITABLE = {
    "the report": ("--gate-report", "test_ordinary.py"),
    "a report below a file": ("--gate-report", "test_ordinary.py/below"),
    "the step summary": (),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("what", UNWRITABLE)
def test_a_run_whose_report_or_summary_cannot_be_written_is_not_green(against, compare, monkeypatch, what):
    if what == "the step summary":
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/full")
    status, output, failures = compare(*UNWRITABLE[what])
    assert status == 1
    assert failures == dict.fromkeys(PAIRS, "")
    assert "gate NOT GREEN: 2 PASS; " in output
    assert f"the {'step summary' if what == 'the step summary' else 'report'} cannot be written" in output
    assert_no_traceback(output)
    assert len(against.pids) == 5


def test_a_report_that_cannot_be_written_fails_a_run_that_judges_nothing(against, run_gate):
    status, output, _ = run_gate("--gate-report", "test_ordinary.py")
    assert status == 1
    assert "the report cannot be written" in output


def test_a_full_disk_for_the_copies_is_reported_and_tried_once(against, stopped, monkeypatch):
    full = mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("tempfile.mkdtemp", full)
    assert "nothing can be measured ([Errno 28] No space left on device)" in stopped()
    full.assert_called_once()
    assert against.pids == []
