"""The paired gate when it cannot measure: it says why, is not green, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from correctness_tests.gate.conftest import NO_PLUGINS
from correctness_tests.gate.paired_suite import REPOSITORY
from correctness_tests.gate.test_campaign import alive, eventually
from xenc.gate.paired.campaign import Campaign

HANGING = "import time\ntime.sleep(600)"

PATIENCE_S = 60.0
"""How long a test waits for what must happen."""


@pytest.fixture
def stopped(against, compare):
    """Runs a gate that must not measure; its output. No item may pass and nothing may be left."""

    def run(*arguments: str, ref: str = "base") -> str:
        before = against.state()
        status, output, failures = compare(*arguments, ref=ref)
        assert status == 1, output
        assert len(failures) == 2
        assert all("NOT MEASURED: " in message for message in failures.values())
        assert "gate NOT GREEN: 2 NOT MEASURED" in output
        assert "Traceback" not in output
        assert "INTERNALERROR" not in output
        assert "warnings summary" not in output
        assert against.state() == before
        assert against.left() == []
        assert not any(alive(pid) for pid in against.pids)
        return output

    return run


@pytest.mark.parametrize("ref", ["nothing-like-it", "--upload-pack=x", ""])
def test_no_such_revision(against, stopped, ref):
    output = stopped(f"--against={ref}")
    assert "commit" in output
    assert against.pids == []


def test_a_revision_without_the_package(against, stopped):
    against.git("rm", "-r", "--quiet", "xenc")
    against.git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--no-gpg-sign", "-m", "x")
    against.git("tag", "empty")
    against.head()
    assert "has no xenc/: choose one that has it" in stopped(ref="empty")
    assert against.pids == []


def test_a_revision_that_cannot_be_imported(against, stopped):
    against.base("import no_such_module")
    output = stopped()
    assert "the base revision cannot be imported (No module named 'no_such_module')" in output
    assert "--accept-unpaired REASON" in output
    assert len(against.pids) == 1


def test_an_accepted_reason_lets_the_stored_baseline_judge_instead(against, compare, monkeypatch):
    against.base("import no_such_module")
    against.record()
    before = against.state()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(against.path / "summary.md"))
    status, output, failures = compare("--accept-unpaired", "the base needs an old torch")
    assert status == 0, output
    assert failures == {"test_ordinary": ""}
    assert "gate GREEN: 1 PASS" in output
    for said in (output, (against.path / "summary.md").read_text()):
        assert "NOT PAIRED: judged by the stored baseline alone" in said
        assert "No module named 'no_such_module'" in said
        assert "Accepted: the base needs an old torch" in said
    assert against.state() == before
    assert len(against.pids) == 1


def test_an_accepted_reason_without_a_stored_baseline_is_not_green(against, compare):
    against.base("import no_such_module")
    status, output, failures = compare("--accept-unpaired", "the base needs an old torch")
    assert status == 1
    assert "NEW" in failures["test_ordinary"]
    assert "gate NOT GREEN: 1 NEW" in output


def test_an_accepted_reason_that_was_not_needed_is_said_so(against, compare):
    status, output, failures = compare("--accept-unpaired", "why not")
    assert status == 0, output
    assert set(failures) == {"test_against[cpu-first]", "test_against[cpu-second]"}
    assert "--accept-unpaired was not needed" in output
    assert len(against.pids) == 1 + 5


def test_an_accepted_reason_excuses_no_revision_that_is_not_there(against, compare):
    status, output, _ = compare("--accept-unpaired", "why not", ref="nothing-like-it")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "has no commit 'nothing-like-it'" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "import sys; print('the disk is on fire', file=sys.stderr); sys.exit(3)",
            "ended with exit status 3",
        ),
        ("import os; print('the disk is on fire', flush=True); os.abort()", "was killed by SIGABRT"),
        (
            "import sys; print('the disk is on fire'); sys.stdout.flush()\n"
            "open(sys.argv[2], 'w').write('{\"machine\":'); import os; os._exit(0)",
            "not complete JSON",
        ),
        (
            "import sys; print('the disk is on fire'); sys.stdout.flush()\nimport os; os._exit(0)",
            "ended without a result",
        ),
    ],
    ids=["exits", "is killed", "half a result", "no result"],
)
def test_a_measuring_process_that_fails_says_what_happened(against, stopped, code, said):
    against.head(code)
    output = stopped()
    assert said in output
    assert "the disk is on fire" in output
    assert len(against.pids) == 1


def test_a_result_without_a_configuration_is_none(against, stopped):
    against.head(
        "import json, os, sys\n"
        "open(sys.argv[2], 'w').write(json.dumps({'configurations': {'first': {}}})); os._exit(0)"
    )
    assert "a measuring process left out second" in stopped()


def test_a_measuring_process_that_hangs_is_ended(against, stopped):
    against.write(timeout_s=1)
    against.head(HANGING)
    assert "hung, and was killed after 1 s" in stopped()
    assert len(against.pids) == 1


def test_of_two_gates_the_second_does_not_measure(against, stopped):
    with Campaign(["unused"], timeout_s=1, lock=against.temporary / "lock") as first:
        output = stopped()
        assert f"another gate is measuring on this machine (process {os.getpid()}, since" in output
        assert first._lock.is_locked
        assert str(os.getpid()) in (against.temporary / "lock").read_text()
    assert against.pids == []


def test_ctrl_c_ends_the_run_and_all_it_started(against):
    against.record()
    against.head(HANGING)
    before = against.state()
    command = [sys.executable, "-P", "-m", "pytest", "-m", "cpu", *NO_PLUGINS, "--against", "base"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(against.temporary)}
    run = subprocess.Popen(
        [*command, "--benchmark-compare"], cwd=against.path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    eventually(lambda: against.pids or run.poll() is not None)
    (child,) = against.pids
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "gate NOT GREEN: nothing was measured" in output
    eventually(lambda: not alive(child))
    assert [name for name in against.left() if name.startswith("xenc-gate-")] == []
    assert against.state() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_step_summary_that_cannot_be_written_is_not_green(against, compare, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/full")
    status, output, failures = compare()
    assert status == 1
    assert failures == {"test_against[cpu-first]": "", "test_against[cpu-second]": ""}
    assert "gate NOT GREEN: 2 PASS; the step summary cannot be written" in output
    assert "No space left on device" in output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output


@pytest.mark.parametrize("folder", ["test_ordinary.py", "test_ordinary.py/below"])
def test_a_report_that_cannot_be_written_is_not_green(against, compare, folder):
    status, output, failures = compare("--report-dir", folder)
    assert status == 1
    assert failures == {"test_against[cpu-first]": "", "test_against[cpu-second]": ""}
    assert "gate NOT GREEN: 2 PASS; " in output
    assert "the report cannot be written" in output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    assert len(against.pids) == 5


def test_a_report_that_cannot_be_written_fails_a_run_that_judges_nothing(against, gate):
    status, output, _ = gate("--report-dir", "test_ordinary.py")
    assert status == 1
    assert "the report cannot be written" in output


def test_no_room_for_the_copies_is_named_and_tried_once(against, stopped, monkeypatch):
    tried = []

    def full(*_: object, **__: object) -> str:
        tried.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    assert "nothing can be measured ([Errno 28] No space left on device)" in stopped()
    assert tried == [1]
    assert against.pids == []
