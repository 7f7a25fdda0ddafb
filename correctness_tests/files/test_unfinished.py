"""A run that ends at any moment loses nothing and repeats nothing: the next one writes the same bytes."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from correctness_tests.files.fake_model import POISON
from xenc.files import Unfinished, unfinished

RECORDS = 200
FORMATS = ["jsonl", "csv", "parquet"]
BAD = {17, 18, 100, 199}


def write_pairs(name: str, *, bad: bool = False, last: str = "end") -> None:
    pairs = [(f"query {n}", POISON if bad and n in BAD else f"document {n}") for n in range(RECORDS)]
    Path(name).write_text("".join(json.dumps([*pair]) + "\n" for pair in [*pairs, ("last", last)]))


def content(name: str) -> object:
    return pq.read_table(name) if name.endswith("parquet") else Path(name).read_bytes()


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


def seconds_of(run) -> float:
    began = time.monotonic()
    assert run() == 0
    return time.monotonic() - began


def in_a_child(
    score, *arguments: object, kill_after: float | None = None, file_bytes: int | None = None
) -> int:
    """The exit status of `xenc score` in a process of its own; minus the signal's number if it was killed."""
    child = os.fork()
    if child == 0:
        if file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
        os._exit(score(*arguments, "--quiet"))
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("format", FORMATS)
def test_killed_at_any_moment_it_goes_on_to_the_same_file(score, format):
    write_pairs("x.jsonl", bad=True)
    asked = ("x.jsonl", "-o", f"y.{format}", "--skip-bad", "bad.jsonl")
    assert score("x.jsonl", "-o", f"whole.{format}", "--skip-bad", "whole-bad.jsonl", "--quiet") == 0
    seconds = min(seconds_of(lambda: in_a_child(score, *asked, "--overwrite")) for _ in range(3))
    draw, killed = random.Random(format), 0
    while killed < 17:
        statuses = []
        while not statuses or statuses[-1] != 0:
            first = ("--overwrite",) if not statuses else ("--resume",)
            statuses.append(in_a_child(score, *asked, *first, kill_after=draw.uniform(0, seconds)))
            assert statuses[-1] in (0, -signal.SIGKILL)
        killed += statuses.count(-signal.SIGKILL)
        seconds *= 0.8 if len(statuses) == 1 else 1.1  # the machine is as fast as it is
        assert content(f"y.{format}") == content(f"whole.{format}")
        assert content("bad.jsonl") == content("whole-bad.jsonl")
        assert files() == {"x.jsonl", f"y.{format}", f"whole.{format}", "bad.jsonl", "whole-bad.jsonl"}


@pytest.mark.parametrize("format", FORMATS)
def test_ended_at_any_step_it_goes_on_to_the_same_file(score, monkeypatch, format):
    write_pairs("x.jsonl", bad=True)
    assert score("x.jsonl", "-o", f"whole.{format}", "--skip-bad", "whole-bad.jsonl") == 0
    asked = ("x.jsonl", "-o", f"y.{format}", "--skip-bad", "bad.jsonl")
    with steps(monkeypatch) as whole:
        assert score(*asked, "--overwrite") == 0
    for last in [*range(0, whole.count, 25), *range(whole.count - 9, whole.count)]:
        with steps(monkeypatch, last):
            assert score(*asked, "--overwrite") == 2
        assert score(*asked, "--resume") == 0
        assert content(f"y.{format}") == content(f"whole.{format}")
        assert content("bad.jsonl") == content("whole-bad.jsonl")
        assert files() == {"x.jsonl", f"y.{format}", f"whole.{format}", "bad.jsonl", "whole-bad.jsonl"}


class Steps:
    """Counts what changes the disk, and fails after the last step that is allowed."""

    def __init__(self, last: int | None) -> None:
        self.count, self.last = 0, last

    def before(self, function):
        def stepped(*arguments, **named):
            if self.count == self.last:
                raise OSError(28, "No space left on device")
            self.count += 1
            return function(*arguments, **named)

        return stepped


@contextmanager
def steps(monkeypatch: pytest.MonkeyPatch, last: int | None = None) -> Iterator[Steps]:
    counted = Steps(last)
    with monkeypatch.context() as patched:
        for place, name in ((unfinished, "_append"), (Path, "replace"), (Path, "unlink")):
            patched.setattr(place, name, counted.before(getattr(place, name)))
        yield counted


def test_a_full_disk_is_said_and_what_was_scored_is_kept(score, capfd):
    write_pairs("x.jsonl")
    assert score("x.jsonl", "-o", "whole.jsonl") == 0
    limit = Path("whole.jsonl").stat().st_size // 2
    assert in_a_child(score, "x.jsonl", "-o", "y.jsonl", file_bytes=limit) == 2
    kept = json.loads(Path("y.jsonl.progress").read_text())["scored"]
    assert RECORDS // 3 < kept < RECORDS
    assert (
        f"y.jsonl: File too large. {kept} scored records are kept: go on with --resume"
        in capfd.readouterr().err
    )
    assert score("x.jsonl", "-o", "y.jsonl", "--resume") == 0
    assert content("y.jsonl") == content("whole.jsonl")


def stop_halfway(score, *arguments: object) -> None:
    """Leave an unfinished run: its last record is bad."""
    write_pairs("x.jsonl", last=POISON)
    assert score("x.jsonl", "-o", "y.jsonl", *arguments) == 2
    assert {"y.jsonl.partial", "y.jsonl.progress"} <= files()
    assert "y.jsonl" not in files()


def test_what_was_begun_with_other_settings_is_not_gone_on_with(score, capsys):
    stop_halfway(score)
    for option, said in (
        (("--dtype", "bfloat16"), "was begun without --dtype, and not with --dtype torch.bfloat16"),
        (("--model", "another"), "and not with --model another: give the same options, or begin anew"),
        (("--keep", "query"), "was begun without --keep, and not with --keep query"),
        (("--max-length", "99"), "was begun without --max-length, and not with --max-length 99"),
    ):
        assert score("x.jsonl", "-o", "y.jsonl", "--resume", *option) == 2
        assert said in capsys.readouterr().err


def test_another_input_is_not_gone_on_with(score, capsys):
    stop_halfway(score)
    text = Path("x.jsonl").read_text()
    Path("x.jsonl").write_text(text.replace("document 100", "document 999"))
    assert score("x.jsonl", "-o", "y.jsonl", "--resume") == 2
    assert "lines are not those that were scored before: give the same file" in capsys.readouterr().err
    write_pairs("x.jsonl", last="good now")
    assert score("x.jsonl", "-o", "y.jsonl", "--resume") == 0
    assert json.loads(content("y.jsonl").split(b"\n")[-2])["document"] == "good now"


def test_an_unfinished_run_is_neither_overwritten_nor_taken_for_a_finished_one(score, capsys):
    stop_halfway(score)
    assert score("x.jsonl", "-o", "y.jsonl") == 2
    assert "was not finished: go on with --resume, or begin anew with --overwrite" in capsys.readouterr().err
    write_pairs("x.jsonl")
    assert score("x.jsonl", "-o", "y.jsonl", "--overwrite") == 0
    before = content("y.jsonl")
    assert score("x.jsonl", "-o", "y.jsonl") == 2
    assert "is there already: name another file, or --overwrite" in capsys.readouterr().err
    for quiet in ((), ("--quiet",)):
        assert score("x.jsonl", "-o", "y.jsonl", "--resume", *quiet) == 0
        assert "is there, and no run of it is unfinished: nothing is done" in capsys.readouterr().err
    assert content("y.jsonl") == before


def test_a_progress_that_cannot_be_read_is_said(score, capsys):
    stop_halfway(score)
    for text in ("", "{", "[]", "{}", '{"place": {}}', '{"settings": {}, "place": {"offset": 1, "new": 2}}'):
        Path("y.jsonl.progress").write_text(text)
        assert score("x.jsonl", "-o", "y.jsonl", "--resume") == 2
        assert "y.jsonl.progress: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["y.jsonl.partial", "bad.jsonl.partial"])
def test_a_file_that_was_cut_short_is_not_gone_on_with(score, capsys, name):
    write_pairs("x.jsonl", bad=True)
    with pytest.MonkeyPatch.context() as patched, steps(patched, 60):
        assert score("x.jsonl", "-o", "y.jsonl", "--skip-bad", "bad.jsonl") == 2
    os.truncate(name, 10)
    assert score("x.jsonl", "-o", "y.jsonl", "--skip-bad", "bad.jsonl", "--resume") == 2
    assert f"{name}: is shorter than what was written to it" in capsys.readouterr().err


def test_bad_records_of_an_earlier_run_are_not_lost(score, capsys):
    write_pairs("x.jsonl", bad=True)
    with pytest.MonkeyPatch.context() as patched, steps(patched, 60):
        assert score("x.jsonl", "-o", "y.jsonl", "--skip-bad", "bad.jsonl") == 2
    assert score("x.jsonl", "-o", "y.jsonl", "--resume") == 2
    assert "was begun with --skip-bad, which skipped some: give it again" in capsys.readouterr().err


def test_two_processes_do_not_write_one_output(score, capsys):
    write_pairs("x.jsonl")
    with Unfinished(Path("y.jsonl"), {}).begin():
        assert score("x.jsonl", "-o", "y.jsonl", "--overwrite") == 2
        assert "another process is writing it" in capsys.readouterr().err
    assert score("x.jsonl", "-o", "y.jsonl", "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "x.jsonl", "--overwrite"), "x.jsonl: is the input"),
        (("-o", "no/y.jsonl"), "there is no folder no: make it first"),
        (("-o", "folder"), "folder: is a folder"),
        (("-o", "y.jsonl", "--skip-bad", "y.jsonl"), "--skip-bad y.jsonl: is the output too"),
        (("--resume",), "--resume goes on with a file"),
        (("-o", "y.txt"), "'.txt' is none of .jsonl"),
        (("-o", "/proc/y.jsonl"), "/proc/y.jsonl.partial: cannot be written: "),
        (("-o", "y.jsonl", "--score-column", "query"), "there is a column 'query' already"),
        (("-o", "-", "--out-format", "parquet"), "it cannot be a stream"),
    ],
)
def test_outputs_that_cannot_be_are_refused(score, capsys, arguments, said):
    write_pairs("x.jsonl")
    Path("folder").mkdir()
    before = content("x.jsonl")
    assert score("x.jsonl", *arguments) == 2
    assert said in capsys.readouterr().err
    assert content("x.jsonl") == before
