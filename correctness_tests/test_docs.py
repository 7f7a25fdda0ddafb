"""The pages at the top and in docs/: what they tell a reader to type works, and what they point to is there.

A command in an ```sh block ends in a comment that says how long it takes, or that it needs a GPU. If it takes
seconds, it runs here (RUN). Otherwise it is rehearsed (REHEARSE): make prints what it would do, pytest only
collects, a module parses its options and prints its help. A command that neither table knows is an error.

The ```python blocks of a page run one after the other, with DEFAULT_MODEL in place of every model that they
name, those of README.md with trained weights too. What a block prints is the ```text block behind it, if
there is one.
"""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from correctness_tests.mutations import EVERY
from xenc import DEFAULT_MODEL, PRESETS, Execution
from xenc.gate.verdict import Verdict

ROOT = Path(__file__).parent.parent
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
OWN_PACKAGES = ("xenc", "perf_tests", "correctness_tests", "docs")
DURATION = re.compile(r"\b(\d+|some|many|an?) (second|minute|hour)")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


RUN_ELSEWHERE = ("pytest perf -m cpu", "curl ")  # gate/test_another_project.py, examples/test_serving_page.py

COMMANDS = {
    (name, line)
    for name, text in TEXTS.items()
    for block in blocks(text, "sh")
    for line in block.splitlines()
    if line.strip()
    and not line.startswith(RUN_ELSEWHERE)
    and name != "docs/command-line.md"  # commands/test_page.py runs that page
}


def run(words: list[str], _: Path) -> None:
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def draw_elsewhere(words: list[str], folder: Path) -> None:
    """A copy of the script runs, since a script writes beside itself."""
    script = Path(shutil.copy(ROOT / words[1], folder))
    runpy.run_path(str(script), run_name="__main__")
    assert list(folder.glob("*.png"))


def make_says_what_it_would_do(words: list[str], folder: Path) -> None:
    for variable in re.findall(r"\b([A-Z_]+)=", " ".join(words)):
        assert f"$({variable})" in MAKEFILE or f"$(if $({variable})" in MAKEFILE, variable
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.replace("\\\n", "").splitlines():
        module = re.search(r"^(?:\w+=\S* )?\S*python3? -m ([\w.]+)(.*)", line)
        if module and module[1] == "pytest":
            pytest_collects(["pytest", *shlex.split(module[2])], folder)
        elif module and module[1].startswith(OWN_PACKAGES):
            assert find_spec(module[1]), module[1]


def pytest_collects(words: list[str], folder: Path) -> None:
    """An unknown option is pytest's status 4, a suite that cannot be imported 2; the gate's 1 is expected."""
    here = Path(__file__).relative_to(ROOT).as_posix()
    arguments = [here if word == "correctness_tests" else word for word in words[1:]]
    status = pytest.main([*arguments, "--collect-only", "-qq", "--gate-report", str(folder)])
    assert status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


def module_parses(words: list[str], _: Path) -> None:
    """It is run with --help at the end, so it must have a parser that stops there."""
    name = words[2]
    found = find_spec(f"{name}.__main__") if (ROOT / name.replace(".", "/")).is_dir() else find_spec(name)
    assert "argparse" in Path(found.origin).read_text(encoding="utf-8")
    parses(lambda _: runpy.run_module(name, run_name="__main__"), words[2:])


def xenc_parses(words: list[str], _: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts[Path(words[0]).name].split(":")
    parses(getattr(import_module(module), function), words)


def parses(main: Callable[[list[str]], object], words: list[str]) -> None:
    """Values are read before --help is met; an option that nobody knows is not, so the help must list it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*words, "--help"])
        said: list[str] = []
        patch.setattr("argparse.ArgumentParser._print_message", lambda _, text, file=None: said.append(text))
        with pytest.raises(SystemExit) as stopped:
            main(sys.argv[1:])
    assert stopped.value.code == 0, said
    assert [word for word in words if word.startswith("--") and word not in "".join(said)] == []


def script_imports(words: list[str], _: Path) -> None:
    runpy.run_path(str(ROOT / words[1]), run_name="rehearsed")


def pip_finds_its_files(words: list[str], _: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[2:]:
        file, extra = re.fullmatch(r"(.*?)(?:\[(\w+)\])?", word).groups()
        assert "." not in file or (ROOT / file).exists(), file
        assert extra is None or extra in extras, extra


def uvicorn_finds_the_server(words: list[str], _: Path) -> None:
    uvicorn = pytest.importorskip("uvicorn.main", reason="not installed: pip install 'xenc[serve]'")
    module, _, name = uvicorn.main.make_context("uvicorn", words[1:]).params["app"].partition(":")
    assert callable(getattr(import_module(module), name))


def git_has_the_file(words: list[str], _: Path) -> None:
    """Nothing is checked out here: that would undo what somebody is working on."""
    run(["git", "ls-files", "--error-unmatch", *words[2:]], ROOT)


def mutant_exists(words: list[str], _: Path) -> None:
    assert set(words[3:]) <= {mutant.name for mutant in EVERY}


RUN = (
    (r"make help", run),
    (r"python docs/draw_\w+\.py", draw_elsewhere),
    (r"git checkout .+", git_has_the_file),
)
REHEARSE = (
    (r"python -m correctness_tests\.mutants .+", mutant_exists),
    (r"make .+", make_says_what_it_would_do),
    (r"pytest .+", pytest_collects),
    (r"python -m .+", module_parses),
    (r"(\.venv/bin/)?xenc .+", xenc_parses),
    (r"python docs/draw_\w+\.py", script_imports),
    (r"pip install .+", pip_finds_its_files),
    (r"uvicorn .+", uvicorn_finds_the_server),
)


@pytest.mark.parametrize(
    ("page", "line"), sorted(COMMANDS), ids=[re.sub(r"\s+# .*", "", line) for _, line in sorted(COMMANDS)]
)
def test_a_command_works(page, line, tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)  # the gate would write there
    monkeypatch.chdir(ROOT)
    command, _, comment = (part.strip() for part in line.partition(" # "))
    duration = DURATION.search(comment)
    assert duration or "needs a GPU" in comment, "say how long it takes, or that it needs a GPU"
    table = RUN if duration and duration[2] == "second" else REHEARSE
    check = next((check for pattern, check in table if re.fullmatch(pattern, command)), None)
    assert check, "no test knows this command: add it to RUN or REHEARSE"
    check(shlex.split(re.sub(r"\$\([^)]*\)", "HEAD", command)), tmp_path)


@pytest.mark.parametrize("page", TEXTS)
def test_make_has_every_target_that_a_page_names(page):
    assert set(re.findall(r"`make ([a-z-]+)", TEXTS[page])) <= TARGETS


@pytest.fixture
def quick_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo's graphs run as they are, since generating code for each would take most of a minute."""
    compile_ = torch.compile

    def with_eager_backend(function, *, dynamic, fullgraph, **_):
        return compile_(function, backend="eager", dynamic=dynamic, fullgraph=fullgraph)

    monkeypatch.setattr(torch, "compile", with_eager_backend)


@pytest.fixture(params=["default", "trained"])
def checkpoint(request: pytest.FixtureRequest) -> str:
    """Stands for every model that a page names."""
    return DEFAULT_MODEL if request.param == "default" else str(request.getfixturevalue(request.param))


def with_model(checkpoint: str, code: str) -> str:
    return re.sub(r'CrossEncoder\(\s*"[^"]+"', f"CrossEncoder({checkpoint!r}", code)


EXAMPLES = [
    *((name, "default") for name, text in TEXTS.items() if blocks(text, "python")),
    ("README.md", "trained"),
]
EXAMPLES.remove(("docs/frameworks.md", "default"))  # frameworks/test_page.py runs those


@pytest.mark.parametrize(("page", "checkpoint"), EXAMPLES, indirect=["checkpoint"])
def test_the_examples_of_a_page_run_and_print_what_it_says(
    page, checkpoint, quick_compile, tmp_path, monkeypatch, capsys
):
    if "import ray" in TEXTS[page]:
        pytest.importorskip("ray", reason="pip install 'xenc[ray]' to run this page")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    examples = re.findall(
        r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", TEXTS[page], re.MULTILINE | re.DOTALL
    )
    for code, printed in examples:
        capsys.readouterr()
        exec(compile(with_model(checkpoint, code), page, "exec"), names)
        if printed:
            assert capsys.readouterr().out == printed


def test_the_three_line_change_scores_as_before(checkpoint, quick_compile):
    (change,) = blocks(TEXTS["README.md"], "diff")
    scores = []
    for left_out in "+-":
        kept = [line[1:] for line in change.splitlines() if not line.startswith(left_out)]
        names: dict[str, object] = {"pairs": [("bees", "Bees make honey."), ("bees", "A bank lends money.")]}
        exec(compile(with_model(checkpoint, "\n".join(kept)), "README.md", "exec"), names)
        scores.append(names["scores"])
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-4)
    assert scores[0][0] > scores[0][1]


def anchors(text: str) -> set[str]:
    """As GitHub makes them: lower case, without punctuation, a hyphen for each space."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=TEXTS)
def test_a_link_leads_somewhere(page):
    for link in links(page):
        file, _, anchor = link.partition("#")
        if not file.startswith("http"):
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_and_picture_is_linked_to():
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    pictures = set((ROOT / "docs").glob("*.png"))
    assert pictures
    assert {*pictures, *PAGES[1:]} <= linked


@pytest.mark.parametrize("script", sorted((ROOT / "docs").glob("draw_*.py")), ids=lambda script: script.stem)
def test_a_script_that_draws_a_picture_still_imports_what_it_needs(script, tmp_path):
    script_imports(["python", str(script)], tmp_path)


@pytest.mark.parametrize(("page", "lines"), [("README.md", 150), ("docs/design.md", 200)])
def test_a_page_is_short_enough_to_be_read(page, lines):
    assert len(TEXTS[page].splitlines()) <= lines


def first_column(page: str, heading: str) -> set[str]:
    """What stands in the first column of the table under a row of headings."""
    table = TEXTS[page].split(heading, 1)[1].split("\n\n", 1)[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return {name for row in rows[1:] for name in re.findall(r"`([^`]+)`", row) or [row]}


def test_presets_fields_and_verdicts_of_the_tables_exist():
    assert first_column("docs/using.md", "| preset |") == set(PRESETS)
    assert first_column("docs/using.md", "| field |") == {field.name for field in fields(Execution)}
    for page in ("docs/gate.md", "docs/gate-on-your-runner.md"):
        assert first_column(page, "| verdict |") == {str(verdict) for verdict in Verdict}
    chosen = re.findall(r"`((?:packed|bucketed)[\w-]*)`", TEXTS["docs/choosing-a-preset.md"])
    assert {"packed", "bucketed"} <= set(chosen) <= set(PRESETS)


def test_the_picture_of_the_readme_shows_the_numbers_of_the_table():
    tree = ast.parse((ROOT / "docs" / "draw_cpu_speed.py").read_text(encoding="utf-8"))
    drawn = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    rows = re.findall(r"^\| bfloat16 \|(.+)$", TEXTS["docs/benchmarks.md"], re.MULTILINE)
    speeds = {speed for row in rows for speed in re.findall(r"\d+\.\d", row.split("| 0.")[0])}
    assert len(speeds) == 9
    assert speeds <= drawn
