"""A suite with a clock of its own in a git checkout of its own, and pytest with the gate to run it."""

from __future__ import annotations

import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from correctness_tests.gate import paired_suite
from xenc.gate.paired import session as paired_session

SUITE = """
import pytest

now = 0.0

def clock():
    return now

def work():
    global now
    now += {work}

@pytest.mark.{marker}
@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("name", {names})
def test_sum(benchmark, name):
    benchmark.extra_info.update({info})
    benchmark.pedantic(work, rounds=5)
"""
NO_PLUGINS = ("-p", "no:cacheprovider")


def git(folder: Path, *arguments: str) -> str:
    """What git prints, run in a folder."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    command = ["git", *identity, "-c", "commit.gpgSign=false", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(folder: Path) -> str:
    """Commit what lies in a folder; its revision."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "x")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def commit(pytester: pytest.Pytester) -> Callable[[], str]:
    git(pytester.path, "init", "--quiet")
    return lambda: commit_all(pytester.path)


@pytest.fixture
def suite(pytester: pytest.Pytester, commit: Callable[[], str]):
    pytester.makeconftest('pytest_plugins = ("xenc.gate",)')
    pytester.makeini("[pytest]\naddopts = --strict-markers --strict-config")
    pytester.path.joinpath(".gitignore").write_text("__pycache__/\n")

    def write(
        work: float = 4, names: tuple[str, ...] = ("first", "second"), marker: str = "cpu", **info: object
    ) -> None:
        pytester.makepyfile(test_timed=SUITE.format(work=work, names=names, marker=marker, info=info))
        commit()

    write()
    return write


@pytest.fixture
def run_gate(pytester: pytest.Pytester):
    def run(*arguments: str, marker: str = "cpu") -> tuple[int, str, dict[str, str]]:
        """Exit status, output, and JUnit's failure message of each test."""
        junit = pytester.path / "junit.xml"
        result = pytester.runpytest_inprocess("-m", marker, f"--junitxml={junit}", *NO_PLUGINS, *arguments)
        failures = {}
        for case in ElementTree.parse(junit).iter("testcase") if junit.exists() else ():
            failure = case.find("failure") if case.find("error") is None else case.find("error")
            failures[case.attrib["name"]] = "" if failure is None else failure.attrib["message"]
        junit.unlink(missing_ok=True)
        return int(result.ret), "\n".join(result.outlines + result.errlines), failures

    return run


@pytest.fixture
def recorded(suite, run_gate, pytester) -> Path:
    status, output, _ = run_gate("--gate-record")
    assert status == 0, output
    (path,) = (pytester.path / ".benchmarks").glob("*.json")
    return path


class Against:
    """A checkout with a base, marked "base", and a head; and the gate to compare them."""

    def __init__(self, pytester: pytest.Pytester, commit: Callable[[], str], temporary: Path) -> None:
        self.path, self.temporary = pytester.path, temporary
        self._pytester, self._commit = pytester, commit
        self.settings()
        self.pairs()
        for name, text in paired_suite.FILES.items():
            (self.path / name).write_text(text)
        self.head()
        self.git("tag", "base")

    def settings(self, *, package: str = "made", timeout_s: object = 60) -> None:
        """What is measured, and how long a measuring process may take."""
        text = paired_suite.INI.format(package=package, timeout_s=timeout_s)
        (self.path / "pytest.ini").write_text(text)

    def pairs(self, marks: str = paired_suite.PAIRED, body: str = paired_suite.NEVER) -> None:
        """The tests that are measured on both revisions."""
        (self.path / "test_pairs.py").write_text(paired_suite.PAIRS.format(marks=marks, body=body))

    def head(self, code: str = "", *, committed: bool = True) -> None:
        """A package that does what the base's does, and then `code`."""
        package = self.path / "made"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text(paired_suite.PACKAGE + dedent(code))
        if committed:
            self._commit()

    def base(self, code: str) -> None:
        """The same of the base; the head is as it was at first."""
        self.head(code)
        self.git("tag", "--force", "base")
        self.head()

    def git(self, *arguments: str) -> str:
        return git(self.path, *arguments)

    def state(self) -> tuple[str, ...]:
        """What no gate may change: the checkout, the worktrees, the baselines."""
        baselines = sorted((self.path / ".benchmarks").glob("*"))
        return (
            self.git("status", "--porcelain"), self.git("worktree", "list"), self.git("show-ref"),
            *(file.read_text() for file in baselines),
        )  # fmt: skip

    @property
    def pids(self) -> list[int]:
        """One of each measuring process that ran."""
        noted = self.path / "pids"
        return [int(pid) for pid in noted.read_text().split()] if noted.exists() else []

    def left(self) -> list[str]:
        """What gates have left in the folder for temporary files."""
        return [file.name for file in self.temporary.iterdir() if file.name != "lock"]

    def record(self) -> None:
        """Store a baseline of what is no pair."""
        run = self._pytester.runpytest_inprocess("-m", "cpu", "--gate-record", *NO_PLUGINS)
        assert run.ret == 0


@pytest.fixture
def against(pytester, commit, tmp_path_factory, monkeypatch) -> Against:
    """Gates under test hold a lock of their own and make their folders where nobody else does."""
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for measures in (paired_session.measure_paired, paired_session.check_pairable):
        monkeypatch.setitem(measures.__kwdefaults__, "lock", temporary / "lock")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return Against(pytester, commit, temporary)


@pytest.fixture
def compare(against, run_gate):
    """Runs the gate against the base."""

    def run(*arguments: str, ref: str = "base", marker: str = "cpu") -> tuple[int, str, dict[str, str]]:
        return run_gate("--against", ref, *arguments, "--benchmark-compare", marker=marker)

    return run
