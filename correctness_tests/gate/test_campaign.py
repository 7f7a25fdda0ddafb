"""Measuring processes that die, hang or are interrupted, played by small scripts."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

import xenc
from correctness_tests.waiting import until
from xenc.gate.errors import CampaignError
from xenc.gate.paired.campaign import LOCK, Campaign, write_result

WITHOUT_TORCH = f"""
import json, os, signal, subprocess, sys, time, types
from pathlib import Path
xenc = sys.modules["xenc"] = types.ModuleType("xenc")
xenc.__path__ = [{str(Path(xenc.__file__).parent)!r}]
from xenc.gate.paired.campaign import Campaign, end_with_parent, write_result
"""
"""The start of a script: `import xenc` would take seconds."""

CHILD = WITHOUT_TORCH + "request, result = Path(sys.argv[1]), Path(sys.argv[2])\nend_with_parent()\n"

PATIENCE_S = 30.0
"""How long a test waits for what must happen; it happens in well under a second."""

HANGING = dedent("""
    noted = Path(json.loads(request.read_text())["pids"])
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    noted.with_suffix(".partial").write_text(f"{os.getpid()} {started.pid} {request.parent}")
    noted.with_suffix(".partial").rename(noted)
    time.sleep(600)
""")
"""A child that starts another, notes the pids of both and their folder, and hangs."""

STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HANGING


@pytest.fixture
def script(tmp_path):
    """Makes a measuring program of a child's body."""

    def made(body: str, start: str = CHILD) -> list[str]:
        file = tmp_path / f"script_{len(list(tmp_path.glob('script_*')))}.py"
        file.write_text(start + dedent(body))
        return [sys.executable, str(file)]

    return made


@pytest.fixture
def run(script):
    """Runs one child of this body."""

    def ran(body: str, timeout_s: float = PATIENCE_S, **request: object) -> dict:
        with Campaign(script(body), timeout_s=timeout_s, lock=None) as campaign:
            return campaign.run_process(request)

    return ran


@pytest.fixture
def enter(tmp_path):
    """Makes a campaign that holds a lock and runs nothing."""
    return lambda lock=tmp_path / "lock": Campaign(["unused"], timeout_s=1, lock=lock)


@pytest.fixture
def campaign_process(script, tmp_path) -> Iterator:
    """Starts another process whose campaign runs a hanging child; gives it, and the pids of its children."""
    lock, pids, started = tmp_path / "lock", tmp_path / "pids", []

    def start(body: str = HANGING) -> tuple[subprocess.Popen, list[int], Path]:
        parent = f"""
            with Campaign({script(body)!r}, timeout_s=600, lock=Path({str(lock)!r})) as campaign:
                campaign.run_process({{"pids": {str(pids)!r}}})
        """
        command = script(parent, WITHOUT_TORCH)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        eventually(lambda: pids.exists() or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        child, grandchild, folder = pids.read_text().split(maxsplit=2)
        started.append((process, folder))
        return process, [int(child), int(grandchild)], Path(folder)

    yield start
    for process, folder in started:
        process.kill()
        process.wait()
        process.stderr.close()
        shutil.rmtree(folder, ignore_errors=True)


def eventually(condition) -> None:
    assert until(condition, PATIENCE_S), "it never happened"


def alive(pid: int) -> bool:
    """Whether a process runs: a dead one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(pids: list[int]) -> None:
    eventually(lambda: not any(map(alive, pids)))


@pytest.fixture
def no_folder_left() -> Iterator[None]:
    def folders() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("xenc-gate-process-*"))

    before = folders()
    yield
    assert folders() <= before


def test_every_process_of_a_campaign_is_fresh_and_answers_its_request(script, no_folder_left):
    body = """
        found = len(list(result.parent.iterdir()))  # the request and the output
        write_result(result, {"asked": json.loads(request.read_text()), "pid": os.getpid(), "found": found})
    """
    requests = [{"seeds": [1, 2], "name": "ü"}, {}, {}]
    with Campaign(script(body), timeout_s=PATIENCE_S, lock=None) as campaign:
        answers = [campaign.run_process(request) for request in requests]
    assert [answer["asked"] for answer in answers] == requests
    assert len({os.getpid(), *(answer["pid"] for answer in answers)}) == 4
    assert [answer["found"] for answer in answers] == [2, 2, 2]


LONG = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    write_result(result, {"long": "a" * 10_000})
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(3)", "ended with exit status 3; it printed nothing"),
        ("print('a hint')\nos.abort()", "was killed by SIGABRT; its last lines:\n  a hint"),
        ("write_result(result, {})\nos.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("raise ValueError('why')", "ended with exit status 1; .*ValueError: why"),
        ("print('nothing to do')", "ended without a result; its last lines:\n  nothing to do"),
        ("result.write_text('{\"machine\": ')", "not complete JSON"),
        ("result.write_bytes(b'\\xff\\xfe')", "not complete JSON"),
        ("result.write_text('')", "not complete JSON"),
        ("result.write_text('[1]')", "wrote a list, not an object"),
        ("result.mkdir()", "no measuring process can run .*directory"),
        (LONG, r"exit status 1;.*RESULT\.json .*is the disk full"),
    ],
)
def test_a_process_without_a_result_says_what_happened(run, no_folder_left, body, message):
    with pytest.raises(CampaignError, match=f"(?s){message}"):
        run(body)


def test_only_the_last_lines_of_a_long_output_are_shown(run):
    with pytest.raises(CampaignError) as raised:
        run("for line in range(100_000): print('line', line)\nprint('\\udcff', flush=True)")
    assert "line 99999" in str(raised.value)
    assert len(str(raised.value).splitlines()) < 30


def test_a_program_that_cannot_start_is_named(tmp_path):
    with (
        Campaign([str(tmp_path / "absent")], timeout_s=1, lock=None) as campaign,
        pytest.raises(CampaignError, match="absent cannot be started"),
    ):
        campaign.run_process({})


@pytest.mark.parametrize("body", [HANGING, STUBBORN], ids=["asleep", "deaf to SIGTERM"])
def test_a_process_that_hangs_is_killed_with_all_it_started(run, tmp_path, monkeypatch, body):
    monkeypatch.setattr("xenc.gate.paired.campaign.GRACE_S", 0.1)
    with pytest.raises(CampaignError, match=r"hung, and was killed after 1 s; its last lines:\n  working"):
        run("print('working', flush=True)\n" + body, timeout_s=1, pids=str(tmp_path / "pids"))
    all_end([int(pid) for pid in (tmp_path / "pids").read_text().split()[:2]])


def test_what_a_process_leaves_behind_is_killed(run):
    body = """
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        write_result(result, {"left": left.pid})
    """
    all_end([run(body)["left"]])


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_request_that_does_not_fit_the_disk_is_an_error(script, no_folder_left):
    with (
        Campaign(script(""), timeout_s=PATIENCE_S, lock=None) as campaign,
        pytest.raises(CampaignError, match=f"{tempfile.gettempdir()} .*is the disk full"),
        files_of_at_most(1000),
    ):
        campaign.run_process({"long": "a" * 10_000})


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "RESULT.json"
    write_result(path, {"old": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["RESULT.json"]
    with files_of_at_most(1000), pytest.raises(CampaignError):
        write_result(path, {"new": "a" * 10_000})
    assert json.loads(path.read_text()) == {"old": 1}


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_ctrl_c_leaves_no_process_and_no_folder_and_a_second_only_hastens_the_end(campaign_process, again):
    slow = "signal.signal(signal.SIGTERM, lambda *_: request.with_name('asked').touch())\n"
    parent, pids, folder = campaign_process(slow * again + HANGING)
    assert all(map(alive, pids))
    assert folder.exists()
    parent.send_signal(signal.SIGINT)
    if again:
        eventually((folder / "asked").exists)
        parent.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in parent.communicate(timeout=PATIENCE_S)[1]
    all_end(pids)
    assert not folder.exists()


def test_a_second_gate_is_told_who_measures_and_may_measure_once_that_is_killed(
    campaign_process, enter, tmp_path
):
    parent, pids, _ = campaign_process()
    with pytest.raises(CampaignError, match=rf"another gate is measuring .*process {parent.pid}, since 20"):
        enter().__enter__()
    parent.kill()
    parent.communicate()
    all_end(pids)
    with enter():
        assert str(os.getpid()) in (tmp_path / "lock").read_text()
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o666  # for other users
    assert (tmp_path / "lock").read_text() == ""


def test_a_campaign_that_was_not_entered_measures_nothing(enter):
    with pytest.raises(RuntimeError, match="entered"):
        enter().run_process({})


@contextmanager
def another_user() -> Iterator[None]:
    """Root may open every file; nobody may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_lock_of_another_user_is_named(enter):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lock"
        path.touch()
        path.chmod(0)
        Path(folder).chmod(0o755)
        with another_user(), pytest.raises(CampaignError, match=f"{path} belongs to another user"):
            enter(path).__enter__()


def test_a_lock_that_cannot_be_taken_is_named(enter, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    for path in (tmp_path, tmp_path / "file" / "lock", tmp_path / "link"):
        with pytest.raises(CampaignError, match=f"{path} cannot be taken"):
            enter(path).__enter__()


def test_every_gate_of_a_machine_takes_the_same_lock():
    assert Path(tempfile.gettempdir()) / "xenc-gate.lock" == LOCK


def test_a_child_without_a_pipe_from_a_parent_runs_on(script, tmp_path):
    command = script("time.sleep(0.1)\nwrite_result(result, {'ended': 'well'})")
    subprocess.run([*command, "unused", tmp_path / "result"], stdin=subprocess.DEVNULL, check=True)
    assert json.loads((tmp_path / "result").read_text()) == {"ended": "well"}


def test_a_child_in_the_group_of_others_ends_alone(script):
    child = subprocess.Popen([*script("time.sleep(600)"), "unused", "unused"], stdin=subprocess.PIPE)
    child.stdin.close()
    assert child.wait(PATIENCE_S) == 1
