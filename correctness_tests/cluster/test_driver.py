"""The process that reads and writes may be killed: the next one goes on, with the scores of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from perf_tests.workloads import seed
from xenc.commands import main
from xenc.files import chunk

PAIRS, CHUNK = 400, 16
OF_SMALL_CHUNKS = f"""
import sys
from xenc.commands import main
from xenc.files import chunk
chunk.CHUNK_RECORDS = {CHUNK}
sys.exit(main(sys.argv[1:]))
"""


def scored_so_far() -> int:
    try:
        return int(json.loads(Path("y.jsonl.progress").read_text())["scored"])
    except FileNotFoundError:
        return 0


def test_killed_and_gone_on_with_it_writes_each_pair_once_with_its_score(local_ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunk, "CHUNK_RECORDS", CHUNK)
    rows = [
        {"id": n, "query": query, "document": document}
        for n, (query, document) in enumerate(seed(pairs=PAIRS, batch_size=16).round(0))
    ]
    Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["score", "x.jsonl", "-o", "y.jsonl", "--max-length", "64", "--quiet"]
    on_ray = [*asked, "--ray", "local", "--ray-workers", "2", "--ray-cpus", "1"]
    driver = subprocess.Popen([sys.executable, "-c", OF_SMALL_CHUNKS, *on_ray])
    while scored_so_far() < CHUNK and driver.poll() is None:
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    assert CHUNK <= scored_so_far() < PAIRS
    assert main([*on_ray, "--resume"]) == 0
    assert main([*asked[:3], "whole.jsonl", *asked[4:]]) == 0
    found, whole = (
        [json.loads(line) for line in Path(name).read_text().splitlines()]
        for name in ("y.jsonl", "whole.jsonl")
    )
    assert [row["id"] for row in found] == [*range(PAIRS)]
    np.testing.assert_allclose(
        [row.pop("score") for row in found], [row.pop("score") for row in whole], atol=1e-4, rtol=0
    )
    assert found == whole == rows
