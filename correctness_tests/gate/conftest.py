"""A suite with a clock of its own in a git checkout of its own, and pytest with the gate to run it."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture
def commit(pytester: pytest.Pytester) -> Callable[[], str]:
    """Commit what lies in the suite's folder; its revision."""

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        return subprocess.run(command, cwd=pytester.path, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")

    def commit() -> str:
        git("add", "--all")
        git("commit", "--quiet", "--no-gpg-sign", "--allow-empty", "-m", "x")
        return git("rev-parse", "HEAD").strip()

    return commit


@pytest.fixture
def suite(pytester: pytest.Pytester, commit: Callable[[], str]):
    pytester.makeconftest('pytest_plugins = ("xenc.gate.plugin",)')
    pytester.makeini("[pytest]\nmarkers =\n cpu: cpu\n gpu: gpu")
    pytester.path.joinpath(".gitignore").write_text("__pycache__/\n")

    def write(
        work: float = 4, names: tuple[str, ...] = ("first", "second"), marker: str = "cpu", **info: object
    ) -> None:
        pytester.makepyfile(test_timed=SUITE.format(work=work, names=names, marker=marker, info=info))
        commit()

    write()
    return write


@pytest.fixture
def gate(pytester: pytest.Pytester):
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
def recorded(suite, gate, pytester) -> Path:
    status, output, _ = gate("--record-baseline")
    assert status == 0, output
    (path,) = (pytester.path / ".benchmarks").glob("*.json")
    return path
