"""The gate in a project that has nothing to do with xenc: files and commands are those of docs/gate.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from correctness_tests.gate.conftest import commit_all, git

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "gate.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```(?:python|ini)\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
NEW, RECORD, COMPARE, AGAINST, SLOWER = (
    shlex.split(line.partition("#")[0])[1:]
    for line in PAGE.splitlines()
    if line.startswith("pytest perf -m cpu")
)

INIT = "from .model import Encoder\nfrom .text import tokenize\n"

MODEL = """
import torch
from torch.profiler import record_function


class Layers(torch.nn.Module):
    def __init__(self, count=8):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(192, 192) for _ in range(count))
        self.calls = 0

    def forward(self, rows):
        for layer in self.layers:
            rows = layer(rows)
        return rows


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.head = Layers(), torch.nn.Linear(192, 1)

    def forward(self, hidden):
        with record_function("encode"):
            hidden = self.layers(hidden)
        with record_function("classify"):
            return self.head(hidden)
"""

TEXT = """
def tokenize(text):
    return [number_of(word) for word in text.split()]


def number_of(word):
    value = 0
    for letter in word:
        value = (31 * value + ord(letter)) % 30000
    return value
"""

MORE_WORK = {
    "tiny/model.py": ("count=8", "count=9"),
    "tiny/text.py": ("for word in text.split()]", "for word in (text + text[: len(text) // 10]).split()]"),
}
ANOTHER_GRAPH_EACH_TIME = {
    "tiny/model.py": (
        "    def forward(self, rows):\n",
        "    def forward(self, rows):\n        self.calls += 1\n        rows = rows + 0 * self.calls\n",
    )
}


class Project:
    """A project in a repository of its own, and pytest in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name, text in {
            **FILES,
            "tiny/__init__.py": INIT,
            "tiny/model.py": MODEL,
            "tiny/text.py": TEXT,
        }.items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text(text)
        (path / ".gitignore").write_text("__pycache__/\n")
        git(path, "init", "--quiet")
        commit_all(path)

    def change(self, changes: dict[str, tuple[str, str]]) -> None:
        for name, (old, new) in changes.items():
            text = (self.path / name).read_text()
            assert old in text
            (self.path / name).write_text(text.replace(old, new))

    def undo(self) -> None:
        git(self.path, "checkout", "--quiet", ".")

    def run(self, arguments: list[str]) -> tuple[int, str]:
        """Exit status and output."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        environment["TMPDIR"] = str(self.path.parent)  # where the lock of another gate does not lie
        environment.pop("GITHUB_STEP_SUMMARY", None)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


def lines_of(output: str, name: str) -> str:
    """The row of a test in the gate's table."""
    (row,) = (line for line in output.splitlines() if line.startswith("| ") and f"{name} " in line)
    return row


def assert_named(output: str) -> None:
    """The gate says what grew: exact counts, the stage, the kernel and the Python function."""
    said = output.replace("`", "")
    for line in (
        r"kernels: \d+ -> \d+",
        r"Python calls: 2402 -> 2642",
        r"- test_encode: stage encode: \d+ -> \d+ operators",
        r"- test_encode: kernel more often: aten::\w+ \d+ -> \d+",
        r"- test_tokenize: function more often: tiny/text.py:number_of 2400 -> 2640",
    ):
        assert re.search(line, said), line
    assert all("REGRESSED" in lines_of(output, name) for name in ("test_encode", "test_tokenize"))


def with_wide_margins(path: Path) -> None:
    """Nothing that times alone say counts any more, on however busy a machine: they are not tested here."""
    (baseline,) = (path / ".benchmarks").glob("*.json")
    content = json.loads(baseline.read_text())
    for entry in content["entries"].values():
        entry["margin"] = 0.99
        for session in entry["sessions"]:
            session["seconds"] = [10 * second for second in session["seconds"]]
    baseline.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Recorded."""
    project = Project(tmp_path_factory.mktemp("project"))
    status, output = project.run(NEW)
    assert status == 1
    assert "gate NOT GREEN: 2 NEW" in output
    status, output = project.run(RECORD)
    assert status == 0, output
    assert "recorded 2 benchmarks" in output
    commit_all(project.path)
    with_wide_margins(project.path)
    return project


@pytest.fixture(autouse=True)
def undone(request):
    yield
    if "project" in request.fixturenames:
        project = request.getfixturevalue("project")
        project.undo()
        with_wide_margins(project.path)


def test_a_baseline_is_recorded_and_unchanged_code_passes(project):
    status, output = project.run(COMPARE)
    assert status == 0, output
    assert "gate GREEN: 2 PASS" in output
    assert "1 session of commit" in output


def test_more_work_of_a_model_and_of_plain_python_is_called_by_its_counts_and_named(project):
    project.change(MORE_WORK)
    status, output = project.run(COMPARE)
    assert status == 1
    assert_named(output)


@pytest.mark.parametrize(
    ("rounds", "said"),
    [(1, "recompiled: "), (4, "silently eager: ")],
    ids=["recompiles", "past the recompile limit"],
)
def test_what_compiles_or_falls_to_eager_in_the_timed_rounds_is_called_with_the_reason(project, rounds, said):
    """Each call adds a graph until the limit is reached; the warm-up calls it twice for each input."""
    project.change(ANOTHER_GRAPH_EACH_TIME)
    test = project.path / "perf" / "test_speed.py"
    test.write_text(
        test.read_text().replace("for rows in (64, 96, 128)]", f"for rows in (64, 96, 128)] * {rounds}")
    )
    status, output = project.run(COMPARE)
    assert status == 1
    assert "REGRESSED: " in output
    assert said in output
    assert "self.calls" in output or "forward (" in output


def test_a_skipped_a_renamed_and_a_deselected_test_are_never_green(project):
    test = project.path / "perf" / "test_speed.py"
    text = test.read_text().replace(
        "def test_tokenize", "@pytest.mark.skip(reason='slow')\ndef test_tokenize"
    )
    test.write_text(text.replace("def test_encode", "def test_renamed"))
    status, output = project.run(COMPARE)
    assert status == 1
    for word, name in (
        ("NOT MEASURED", "test_tokenize"),
        ("MISSING", "test_encode"),
        ("NEW", "test_renamed"),
    ):
        assert word in lines_of(output, name)
    project.undo()
    status, output = project.run([*COMPARE, "-k", "tokenize"])
    assert status == 1
    assert "NOT MEASURED" in lines_of(output, "test_encode")


def test_without_the_plugin_pytest_benchmarks_options_are_its_own(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(benchmark):\n    benchmark(sum, (1, 2))\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for options in (["--benchmark-autosave"], ["--benchmark-compare"], ["--benchmark-compare=0001"]):
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
        assert "gate" not in done.stdout
    unknown = subprocess.run(
        [*command, "--gate-record"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert unknown.returncode == pytest.ExitCode.USAGE_ERROR


def test_a_package_that_imports_itself_by_name_is_refused_with_the_line(project):
    (project.path / "tiny" / "__init__.py").write_text(INIT + "import os\nfrom tiny.text import number_of\n")
    status, output = project.run(AGAINST)
    assert status == 1
    assert "tiny/__init__.py, line 4: `from tiny.text import number_of`" in output
    assert "import relatively" in output


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [AGAINST, SLOWER], ids=["more work", "made slower"])
def test_beside_another_revision_more_work_is_called_and_named(project, arguments):
    if arguments is AGAINST:
        project.change(MORE_WORK)
    status, output = project.run(arguments)
    assert status == 1
    if arguments is SLOWER:
        assert "The head contains a deliberate fault: 10% slower" in output
        return
    assert_named(output)
