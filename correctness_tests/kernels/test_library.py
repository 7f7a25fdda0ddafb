"""The C++ library: built once, by one process, named by all it depends on; what runs without it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import xenc
from correctness_tests import checkpoints, oracle
from xenc.kernels import library as rooms
from xenc.kernels.library import Library, library

PACKAGE = Path(xenc.__file__).parent
ROOT = PACKAGE.parent
PAIRS = [("a question", "document " * words) for words in (1, 30, 7, 200)]

SCORES = """
import json, logging, sys, torch
logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
import xenc
from xenc.kernels.library import library
checkpoint, pairs, execution = json.loads(sys.argv[1])
model = xenc.CrossEncoder(checkpoint, device="cpu", execution=execution)
for _ in range(2):
    scores = model.predict([tuple(pair) for pair in pairs], activation_fn=torch.nn.Identity())
other = xenc.CrossEncoder(checkpoint, device="cpu", execution=execution)
other.predict([tuple(pairs[0])])
print(json.dumps([scores.tolist(), library().missing, model.pipeline.products, xenc.__file__]))
"""


def run(code: str, *arguments: object, path: Path = ROOT, **environment: object) -> subprocess.Popen:
    """A process that imports xenc from a folder."""
    given = {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=path, start_new_session=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(path), **given},
    )  # fmt: skip


def answer_of(process: subprocess.Popen) -> tuple[object, str]:
    out, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return json.loads(out.splitlines()[-1]), said


def assert_scores_without_the_library(
    checkpoint: Path, because: str, preset: str = "packed-eager", **settings: object
) -> None:
    """As the oracle does, in one warning for all models that says why."""
    process = run(SCORES, json.dumps([str(checkpoint), PAIRS, preset]), **settings)
    (scores, missing, products, file), said = answer_of(process)
    assert Path(file).parent.parent == settings.get("path", ROOT)
    if "CXX" in settings and preset in ("packed", "bucketed"):
        assert "execution is now not compiled" in said
    exact = oracle.logits(checkpoint, PAIRS, max_length=64)
    np.testing.assert_allclose(scores, exact, rtol=0, atol=1e-4)
    assert because in missing
    assert "\n" not in missing
    warnings = [line for line in said.splitlines() if "C++ kernels could not be built or loaded" in line]
    assert len(warnings) == 1, said
    assert missing in warnings[0]
    assert not products.startswith("xenc")


@pytest.fixture
def buildable() -> None:
    """A processor that there are kernels for, whether or not there is a compiler."""
    if not rooms.instructions():
        pytest.skip("no kernels for this processor")


@pytest.mark.parametrize("preset", ["packed-eager", "packed", "bucketed"])
def test_without_a_compiler_everything_scores_and_one_warning_says_why(
    one_layer, tmp_path, buildable, preset
):
    assert_scores_without_the_library(
        one_layer, "/nonexistent/c++", preset, CXX="/nonexistent/c++", TORCH_EXTENSIONS_DIR=tmp_path,
        TORCHINDUCTOR_CACHE_DIR=tmp_path / "graphs",
    )  # fmt: skip


STALE = """
import json, sys, torch, xenc
checkpoint, pairs = json.loads(sys.argv[1])
model = xenc.CrossEncoder(checkpoint, device="cpu")
before = model.predict([tuple(pair) for pair in pairs], activation_fn=torch.nn.Identity())
model.transformers_model.bert.encoder.layer[0].attention.self.query.weight.data.mul_(-3)
after = [model.predict([tuple(pair) for pair in pairs], activation_fn=torch.nn.Identity()) for _ in range(2)]
model.save_pretrained(sys.argv[2])
print(json.dumps([before.tolist(), *(scores.tolist() for scores in after)]))
"""


def test_without_a_compiler_a_weight_written_through_data_shows(tmp_path, buildable):
    checkpoint = checkpoints.make(tmp_path / "model", "bert", num_hidden_layers=2)
    process = run(
        STALE, json.dumps([str(checkpoint), PAIRS]), tmp_path / "changed", CXX="/nonexistent/c++",
        TORCH_EXTENSIONS_DIR=tmp_path / "built",
    )  # fmt: skip
    (before, *after), _ = answer_of(process)
    exact = oracle.logits(tmp_path / "changed", PAIRS, max_length=64)
    assert np.abs(exact - before).max() > 1e-3
    for scores in after:
        np.testing.assert_allclose(scores, exact, rtol=0, atol=1e-4)


def test_without_a_place_to_build_in_everything_scores_and_one_warning_says_why(
    one_layer, tmp_path, buildable
):
    (tmp_path / "file").write_text("")
    assert_scores_without_the_library(one_layer, "file", TORCH_EXTENSIONS_DIR=tmp_path / "file" / "below")


def test_a_source_that_does_not_compile_is_one_warning_too(one_layer, tmp_path, buildable):
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    shutil.copytree(PACKAGE, tmp_path / "xenc", ignore=shutil.ignore_patterns("__pycache__"))
    header = tmp_path / "xenc/kernels/cpp/operators.h"
    header.write_text("#include <no_such_header>\n" + header.read_text())
    assert_scores_without_the_library(
        one_layer, "no_such_header", path=tmp_path, TORCH_EXTENSIONS_DIR=tmp_path / "built"
    )


def test_a_library_that_cannot_be_loaded_is_one_warning_too(one_layer, tmp_path, buildable):
    file = tmp_path / rooms.name() / f"{rooms.name()}.so"
    file.parent.mkdir()
    file.write_text("not a library")
    rooms._digest_of(file).write_text(rooms._digest(file))
    assert_scores_without_the_library(one_layer, rooms.name(), TORCH_EXTENSIONS_DIR=tmp_path)


STANDS_IN = """
import json, os, shutil, sys, time
from pathlib import Path
from torch.utils import cpp_extension
built, log, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])

def load(name, sources, build_directory, **_):
    with log.open("a") as lines:
        print(f"{os.getpid()} builds", file=lines, flush=True)
    time.sleep(seconds)
    shutil.copy(built, Path(build_directory) / f"{name}.so")

cpp_extension.load = load
from xenc.kernels.library import library
print(json.dumps(library().missing))
"""
"""Loads the library, where to build is to wait so many seconds and to copy what is built already."""


@pytest.fixture
def stands_in(kernels, tmp_path):
    from torch.utils import cpp_extension

    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    built = Path(root) / rooms.name() / f"{rooms.name()}.so"
    log, folder = tmp_path / "log", tmp_path / "built"
    log.touch()

    def start(seconds: float) -> subprocess.Popen:
        return run(STANDS_IN, built, log, seconds, TORCH_EXTENSIONS_DIR=folder)

    return start, log, folder / rooms.name()


def test_of_several_processes_at_once_one_builds_and_all_load(stands_in):
    start, log, folder = stands_in
    processes = [start(3) for _ in range(3)]
    assert [answer_of(process)[0] for process in processes] == [None] * 3
    assert len(log.read_text().splitlines()) == 1
    files = {f"{folder.name}.so", f"{folder.name}.sha256", "lock"}
    assert {file.name for file in folder.iterdir()} == files
    assert answer_of(start(0))[0] is None
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize("damage", ["cut short", "emptied", "its digest lost"])
def test_a_library_that_was_damaged_is_built_anew(stands_in, damage):
    """A process that loads one that is cut short is killed."""
    start, log, folder = stands_in
    assert answer_of(start(0))[0] is None
    file = folder / f"{folder.name}.so"
    if damage == "its digest lost":
        rooms._digest_of(file).unlink()
    else:
        os.truncate(file, file.stat().st_size // 2 if damage == "cut short" else 0)
    assert answer_of(start(0))[0] is None
    assert len(log.read_text().splitlines()) == 2


def test_a_process_killed_while_it_builds_blocks_nobody(stands_in):
    start, log, folder = stands_in
    killed = start(600)
    deadline = time.monotonic() + 120
    while not log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    waiting = start(0)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert answer_of(waiting)[0] is None
    assert len(log.read_text().splitlines()) == 2
    assert (folder / f"{folder.name}.so").exists()


@pytest.mark.slow
def test_what_is_built_from_nothing_loads_and_is_one_file(kernels, tmp_path):
    code = "import json; from xenc.kernels.library import library; print(json.dumps(library().missing))"
    processes = [run(code, TORCH_EXTENSIONS_DIR=tmp_path) for _ in range(2)]
    assert [answer_of(process)[0] for process in processes] == [None, None]
    assert [file.name for file in tmp_path.rglob("*.so")] == [f"{rooms.name()}.so"]


def test_the_name_is_of_all_that_the_code_depends_on(tmp_path, monkeypatch):
    names = {rooms.name()}
    assert names == {rooms.name()}

    def assert_another(**changed: object) -> None:
        with monkeypatch.context() as patch:
            for attribute, value in changed.items():
                patch.setattr(rooms, attribute, value)
            names.add(rooms.name())

    for which in ("SOURCES", "_HEADERS"):
        for number, file in enumerate(getattr(rooms, which)):
            changed = tmp_path / file.name
            changed.write_bytes(file.read_bytes() + b"\n")
            files = list(getattr(rooms, which))
            files[number] = changed
            assert_another(**{which: tuple(files)})
    assert_another(NAMESPACE="xenc_head_kernels")
    for instructions in (("avx2", "fma", "f16c"), ("avx2", "fma", "f16c", "avx512f"), ("avx2",)):
        assert_another(instructions=lambda found=instructions: found)
    monkeypatch.setattr(torch, "__version__", "2.0.0")
    assert_another()
    assert len(names) == 1 + len(rooms.SOURCES) + len(rooms._HEADERS) + 1 + 3 + 1
    assert len(rooms.SOURCES) >= 3
    assert len(rooms._HEADERS) >= 4


TWO_COPIES = """
import json, sys, torch
from pathlib import Path
from xenc.gate.paired.revision import import_package, snapshot
import xenc
from xenc.kernels.library import library
folder, checkpoint, pairs = Path(sys.argv[1]), *json.loads(sys.argv[2])
snapshot(Path(xenc.__file__).parent, folder)
copies = [import_package(folder, name, "xenc") for name in ("xenc_one", "xenc_two")]
scores, missing = [], []
for copy in (xenc, *copies):
    model = copy.CrossEncoder(checkpoint, device="cpu", execution=copy.Execution(products="xenc", compile_mode=None))
    scores.append(model.predict([tuple(pair) for pair in pairs]).tolist())
    missing.append(sys.modules[f"{copy.__name__}.kernels.library"].library().missing)
loaded = [hasattr(getattr(torch.ops, f"{name}_kernels"), "linear") for name in ("xenc", "xenc_one", "xenc_two")]
print(json.dumps([scores, missing, loaded]))
"""  # noqa: E501


def test_two_copies_have_operators_of_their_own_and_score_alike_to_the_bit(kernels, one_layer, tmp_path):
    process = run(TWO_COPIES, tmp_path, json.dumps([str(one_layer), PAIRS]))
    (scores, missing, loaded), _ = answer_of(process)
    assert missing == [None] * 3
    assert loaded == [True] * 3
    assert scores[0] == scores[1] == scores[2]


IMPORTED_BY_THE_THREAD = """
import json, sys, threading
from xenc.kernels import library
started = []
threading.Thread = lambda **settings: started.append(settings["target"]) or threading.current_thread()
threading.current_thread().start = lambda: None
library.build_in_background()
before = {name for name in sys.modules if not name.startswith("torch.")}
started[0]()
print(json.dumps(sorted({name for name in sys.modules if not name.startswith("torch.")} - before)))
"""


def test_the_thread_that_builds_imports_nothing_that_transformers_might_import_meanwhile(kernels):
    assert answer_of(run(IMPORTED_BY_THE_THREAD))[0] == []


def test_processors_without_kernels_are_told_apart_and_nothing_is_built(monkeypatch):
    monkeypatch.setattr(rooms, "instructions", lambda: ())
    monkeypatch.setattr(rooms, "_built", None)
    found = rooms._loaded.__wrapped__()
    assert found == Library(missing=found.missing)
    assert "AVX2 or AVX-512" in found.missing


def test_it_is_loaded_once(kernels):
    assert library() is kernels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "which"),
    [
        (
            "test_attention.py",
            "edges or finite or layout or 8192 or company or infinity or blocks or flat",
        ),
        ("test_linear.py", "not slow"),
        ("test_twin.py", "oracles and eager or pytorchs or oracles and xenc"),
    ],
)
def test_the_laws_hold_for_the_code_of_avx2(kernels, file, which, tmp_path):
    """Inductor's cache takes kernels written for AVX2 for those of AVX-512, so this has one of its own."""
    hidden = {"ATEN_CPU_CAPABILITY": "avx2", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"correctness_tests/kernels/{file}", "-k", which],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **hidden, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
