"""A process finds the graphs that an earlier one compiled; a useless file does no harm."""

from __future__ import annotations

import json
import logging
import random
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from correctness_tests.waiting import run_python
from xenc.compiling.cold_start import load_graphs, save_graphs

SCRIPT = """
    import json, logging
    from torch._dynamo.utils import counters
    logging.basicConfig(level="WARNING")
    model.execution = "packed"
    report = model.warmup(cache_dir=os.environ["FOLDER"])
    caches = {name: counters["inductor"][f"fxgraph_cache_{name}"] for name in ("hit", "miss")}
    scores = model.predict(PAIRS).tolist()
    print(json.dumps({"scores": scores, "graphs": report.graphs, **caches}))
"""


def test_what_saves_at_once_leaves_one_whole_file(tmp_path, monkeypatch, caplog):
    """On machines that share a folder processes may have the same number, as threads do here."""
    artifacts = [bytes([number]) * (4 << 20) for number in range(4)]
    together, own = threading.Barrier(len(artifacts)), threading.local()

    def saved() -> tuple[bytes, None]:
        together.wait()
        return own.artifacts, None

    def save(content: bytes) -> None:
        own.artifacts = content
        save_graphs(tmp_path)

    monkeypatch.setattr("torch.compiler.save_cache_artifacts", saved)
    with ThreadPoolExecutor(len(artifacts)) as pool:
        list(pool.map(save, artifacts))
    assert [path.name for path in tmp_path.iterdir()] == ["compiled.bin"]
    assert (tmp_path / "compiled.bin").read_bytes() in artifacts
    assert not caplog.records


@pytest.fixture
def process(one_layer, tmp_path):
    """Warms up in a process of its own, whose usual caches on disk are empty."""
    made = []

    def run() -> dict[str, object]:
        made.append(tmp_path / f"inductor-{len(made)}")
        done = run_python(
            SCRIPT, one_layer, 120, FOLDER=str(tmp_path / "graphs"), TORCHINDUCTOR_CACHE_DIR=str(made[-1])
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return {**json.loads(done.stdout.splitlines()[-1]), "said": done.stderr}

    return run


@pytest.mark.slow
def test_a_second_process_compiles_nothing_and_answers_the_same(process, tmp_path):
    first = process()
    assert (first["hit"], first["graphs"]) == (0, 1)
    assert first["miss"] >= 1
    file = tmp_path / "graphs" / "compiled.bin"
    assert file.stat().st_size > 0
    second = process()
    assert (second["miss"], second["graphs"]) == (0, 1)
    assert second["hit"] >= 1
    assert second["scores"] == pytest.approx(first["scores"], abs=1e-6)
    assert [path.name for path in file.parent.iterdir()] == ["compiled.bin"]
    file.write_bytes(file.read_bytes()[:100])
    third = process()
    assert (third["hit"], third["graphs"]) == (0, 1)
    assert "compiled.bin cannot be used and will be replaced" in third["said"]
    assert third["scores"] == pytest.approx(first["scores"], abs=1e-6)
    assert file.stat().st_size > 100


FOREIGN = {"nothing": b"", "a text": b"not a file of PyTorch's", "zeros": bytes(4096)}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_ignored_with_a_warning(tmp_path, caplog, content):
    (tmp_path / "compiled.bin").write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="xenc"):
        load_graphs(tmp_path)
    assert "cannot be used and will be replaced" in caplog.text


def test_an_empty_folder_causes_no_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load_graphs(tmp_path)
    assert caplog.text == ""


@pytest.mark.parametrize("path", ["compiled.bin", "no folder"])
def test_a_folder_that_cannot_be_read_does_not_stop_the_warm_up(tmp_path, path):
    (tmp_path / "compiled.bin").mkdir()
    (tmp_path / "no folder").write_text("")
    load_graphs(tmp_path if path == "compiled.bin" else tmp_path / path)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_of_its_warm_up_leaves_a_cache_that_works(one_layer, tmp_path):
    places = {"FOLDER": str(tmp_path / "graphs"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    began = time.monotonic()
    whole = run_python(SCRIPT, one_layer, 300, **places)
    seconds, draw, killed = time.monotonic() - began, random.Random(0), 0
    assert whole.returncode == 0, whole.stderr[-3000:]
    for _ in range(10):
        shutil.rmtree(tmp_path / draw.choice(["graphs", "inductor"]))  # so that there is something to write
        try:
            run_python(SCRIPT, one_layer, draw.uniform(0.4, 1) * seconds, **places)
        except subprocess.TimeoutExpired:  # it is killed
            killed += 1
        again = run_python(SCRIPT, one_layer, 300, **places)
        assert again.returncode == 0, again.stderr[-3000:]
        assert "cannot be used" not in again.stderr
        assert scores_of(again) == pytest.approx(scores_of(whole), abs=1e-6)
    assert killed >= 5


def scores_of(done: subprocess.CompletedProcess[str]) -> list[float]:
    return json.loads(done.stdout.splitlines()[-1])["scores"]
