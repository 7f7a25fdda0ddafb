"""Where exported models are kept: made once, whole or not at all, and never another model's."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from correctness_tests import checkpoints
from correctness_tests.waiting import run_python
from xenc.extras import EXTRAS
from xenc.runtimes import export
from xenc.runtimes.export import exported, fingerprint

for module in EXTRAS["onnxruntime"][:2]:
    pytest.importorskip(module, reason="not installed: pip install 'xenc[onnxruntime]'")

GRAPH, WEIGHTS = b"a graph", b"weights, many of them"


@pytest.fixture(scope="module")
def model(one_layer):
    return AutoModelForSequenceClassification.from_pretrained(one_layer).eval()


@pytest.fixture
def exports(monkeypatch) -> list[Path]:
    """Files that were exported, quickly: what is in them is no matter here."""
    made: list[Path] = []

    def write(model, file: Path, *, token_types: bool) -> None:
        made.append(file)
        file.write_bytes(GRAPH)
        file.with_name("model.onnx.data").write_bytes(WEIGHTS)

    monkeypatch.setattr(export, "_export", write)
    return made


def keep(model, folder: Path | None) -> Path:
    return exported(model, token_types=True, folder=folder).file


def assert_only(folder: Path, file: Path) -> None:
    """Nothing partial is left."""
    assert list(folder.iterdir()) == [file.parent]
    assert (file.read_bytes(), file.with_name("model.onnx.data").read_bytes()) == (GRAPH, WEIGHTS)


def test_a_model_is_exported_once(model, exports, tmp_path):
    first, second = keep(model, tmp_path), keep(copy.deepcopy(model), tmp_path)
    assert first == second
    assert len(exports) == 1
    assert_only(tmp_path, first)


def test_without_a_folder_it_is_kept_in_the_users_cache_of_that_moment(model, exports, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "chosen"))
    assert keep(model, None).is_relative_to(tmp_path / "chosen" / "xenc" / "onnx")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert keep(model, None).is_relative_to(tmp_path / "home" / ".cache" / "xenc" / "onnx")


def flipped(file: Path) -> None:
    data = file.with_name("model.onnx.data")
    data.write_bytes(b"W" + data.read_bytes()[1:])


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3])


def without_weights(file: Path) -> None:
    file.with_name("model.onnx.data").unlink()


def without_sums(file: Path) -> None:
    file.with_name("sha256.json").unlink()


def with_sums_cut_short(file: Path) -> None:
    file.with_name("sha256.json").write_text("{")


@pytest.mark.parametrize("damage", [flipped, cut_short, without_weights, without_sums, with_sums_cut_short])
def test_what_is_damaged_is_exported_anew_with_a_warning(model, exports, tmp_path, caplog, damage):
    file = keep(model, tmp_path)
    damage(file)
    with caplog.at_level(logging.WARNING, logger="xenc"):
        assert keep(model, tmp_path) == file
    assert caplog.text.count("cannot be used and will be exported anew") == 1
    assert len(exports) == 2
    assert_only(tmp_path, file)


def test_an_export_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(model, file: Path, *, token_types: bool) -> None:
        file.write_bytes(GRAPH)
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_export", fail)
    with pytest.raises(KeyboardInterrupt):
        keep(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_quicker_is_not_disturbed(model, exports, tmp_path, monkeypatch):
    write = export._export
    inodes = []

    def overtaken(classifier, file: Path, *, token_types: bool) -> None:
        monkeypatch.setattr(export, "_export", write)
        monkeypatch.setattr(export, "_one_at_a_time", export.threading.Lock())  # another process has its own
        inodes.append(keep(model, tmp_path).stat().st_ino)
        write(classifier, file, token_types=token_types)

    monkeypatch.setattr(export, "_export", overtaken)
    file = keep(model, tmp_path)
    assert [file.stat().st_ino] == inodes
    assert len(exports) == 2
    assert_only(tmp_path, file)


def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop_the_export(
    model, exports, tmp_path, caplog
):
    (tmp_path / "taken").write_text("a file in the folder's place")
    with caplog.at_level(logging.WARNING, logger="xenc"):
        made = exported(model, token_types=True, folder=tmp_path / "taken")
    assert "cannot be kept in" in caplog.text
    assert made.file.read_bytes() == GRAPH
    folder = made.file.parent
    del made
    assert not folder.exists()


def other_weight(model) -> None:
    with torch.no_grad():
        model.classifier.bias += 1


def other_buffer(model) -> None:
    model.bert.embeddings.position_ids += 0
    model.bert.embeddings.register_buffer("scale", torch.ones(()))


def other_setting(model) -> None:
    model.config.layer_norm_eps *= 2


def other_attention(model) -> None:
    model.set_attn_implementation("eager")


def other_dtype(model) -> None:
    model.to(torch.bfloat16)


def other_structure(model) -> None:
    model.dropout = torch.nn.Identity()


class Head(torch.nn.Linear):
    """The same weights in code of one's own."""


def other_code(model) -> None:
    model.classifier.__class__ = Head


@pytest.mark.parametrize(
    "change",
    [other_weight, other_buffer, other_setting, other_attention, other_dtype, other_structure, other_code],
)
def test_whatever_the_graph_depends_on_is_in_the_fingerprint(model, change):
    changed = copy.deepcopy(model)
    assert fingerprint(changed, token_types=True) == fingerprint(model, token_types=True)
    change(changed)
    assert fingerprint(changed, token_types=True) != fingerprint(model, token_types=True)


def test_token_types_and_versions_are_in_the_fingerprint(model, monkeypatch):
    before = fingerprint(model, token_types=True)
    assert fingerprint(model, token_types=False) != before
    monkeypatch.setattr(export, "version", lambda name: "another")
    assert fingerprint(model, token_types=True) != before


SCRIPT = """
    from xenc.runtimes import export
    made, write = [], export._export
    export._export = lambda *a, **k: made.append(1) or write(*a, **k)
    model.execution = "onnxruntime"
    model.warmup(4, cache_dir=os.environ["FOLDER"])
    print(len(made), model.predict(PAIRS).tolist())
"""


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_exported(tmp_path):
    pytest.importorskip("onnxruntime", reason="not installed: pip install 'xenc[onnxruntime]'")
    checkpoint = checkpoints.make(tmp_path / "model", "bert")
    first, second = (
        run_python(SCRIPT, checkpoint, 300, FOLDER=str(tmp_path / "kept")).stdout.split(maxsplit=1)
        for _ in range(2)
    )
    assert (first[0], second[0]) == ("1", "0")
    assert first[1] == second[1]
