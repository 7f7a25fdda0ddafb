"""docs/first-hour.md: its change applies to the code as it is; followed step by step, it ends as it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
(CHANGE,) = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SAID,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
STEPS = [
    line.partition(" # ")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
CHANGED = CHANGE.splitlines()[1].removeprefix("+++ b/")


def side(sign: str) -> str:
    """The lines of the change that one side has: "-" for what was there, "+" for what is there then."""
    lines = CHANGE.splitlines(keepends=True)[2:]
    return "".join(line[1:] for line in lines if line[0] in (" ", sign))


def changed(text: str) -> str:
    assert text.count(side("-")) == 1
    return text.replace(side("-"), side("+"))


def without_times(line: str) -> str:
    return re.sub(r" \(\d+\.\d ms\)", "", line).strip()


class Clone:
    """A clone of what is committed, with commands run in it as a reader would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)], check=True)

    def run(self, step: str) -> tuple[int, str]:
        words = shlex.split(step)
        if words[0] == "pytest":
            words = ["python", "-m", *words, "-p", "no:cacheprovider"]
        if words[0] == "python":
            words[0] = sys.executable
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TMPDIR": str(self.folder.parent)}
        environment.pop("GITHUB_STEP_SUMMARY", None)
        done = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


def test_the_change_of_the_page_stands_for_code_that_is_there_and_compiles():
    compile(changed((ROOT / CHANGED).read_text(encoding="utf-8")), CHANGED, "exec")


@pytest.mark.slow
def test_the_steps_of_the_page_end_as_it_says(tmp_path):
    """Minutes, since a process that counts compiles; what takes longer (make) has tests of its own."""
    clone = Clone(tmp_path / "clone")
    tests, broken, mended, counts = [
        step for step in STEPS if not step.startswith("make") and "mutants" not in step
    ]
    assert broken == counts
    file = clone.folder / CHANGED
    file.write_text(changed(file.read_text(encoding="utf-8")), encoding="utf-8")
    status, output = clone.run(tests)
    assert status == 0, output
    status, output = clone.run(broken)
    assert status == 1, output
    assert without_times(SAID) in map(without_times, output.splitlines())
    assert clone.run(mended)[0] == 0
    status, output = clone.run(counts)
    assert status == 0, output
    assert "no more is counted than on the base" in output
