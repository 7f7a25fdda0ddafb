"""docs/command-line.md: its commands run one after the other in an empty folder, as a reader types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_commands_of_the_page_work(tmp_path):
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)).splitlines()
    typed = "\n".join(line for line in lines if " minute" not in line)
    script = typed.replace(".venv/bin/xenc", f"{sys.executable} -m xenc")
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=here, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert json.loads(printed[0])["score"] > 0.5  # score from a stream to a stream
    assert "Workers collect nectar." in printed[3]
    assert [json.loads(line)["index"] for line in printed[-2:]] == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} == {
        "pairs.jsonl",
        "scores.jsonl",
        "scores.parquet",
        "docs.txt",
    }
