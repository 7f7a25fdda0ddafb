"""A model that cannot be loaded: the error is xenc's and the original's, and fits its cause."""

from __future__ import annotations

import copy
import errno
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import sentence_transformers
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoConfig

import xenc
from correctness_tests.scoring import on_cpu
from xenc.errors import ModelError, PairError, of_both_kinds

GIVE = "give a model's name, or a directory with config.json, weights and tokenizer"


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """Folders that are no model, each in its own way."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "empty").mkdir()
    (folder / "file").write_text("no directory")
    for name, without in {
        "no-weights": "*.safetensors",
        "bad-json": "config.json",
        "unknown": "config.json",
    }.items():
        copied = shutil.copytree(tiny, folder / name)
        for file in copied.glob(without):
            file.unlink()
    (folder / "bad-json" / "config.json").write_text("{")
    (folder / "unknown" / "config.json").write_text("{}")
    return folder


UNLOADABLE = {
    "a missing path": ("{folder}/missing", {}, True),
    "an empty directory": ("{folder}/empty", {}, True),
    "a file": ("{folder}/file", {}, True),
    "no weights": ("{folder}/no-weights", {}, True),
    "a broken configuration": ("{folder}/bad-json", {}, True),
    "an unknown name": ("no-such/model", {}, True),
    "an unknown revision": ("no-such/model", {"revision": "other"}, True),
    "no model type": ("{folder}/unknown", {}, False),
    "no modules": (None, {"modules": []}, False),
    "an unknown prompt": ("{tiny}", {"default_prompt_name": "other"}, False),
    "an unknown backend": ("{tiny}", {"backend": "other"}, False),
}


@pytest.mark.parametrize(("name", "options", "incomplete"), UNLOADABLE.values(), ids=UNLOADABLE)
def test_what_cannot_be_loaded_raises_an_error_of_both_kinds(tiny, folder, name, options, incomplete):
    name = name and name.format(tiny=tiny, folder=folder)
    with pytest.raises(Exception) as theirs:  # noqa: PT011 -- whatever it is, ours must be one too
        sentence_transformers.CrossEncoder(name, device="cpu", **options)
    with pytest.raises(ModelError) as ours:
        xenc.CrossEncoder(name, device="cpu", **options)
    assert isinstance(ours.value, theirs.type)
    assert str(ours.value).endswith(str(theirs.value))
    assert (GIVE in str(ours.value)) == incomplete
    assert (repr(name) in str(ours.value)) == (name is not None)
    assert getattr(ours.value, "errno", None) == getattr(theirs.value, "errno", None)


def out_of_reach() -> RepositoryNotFoundError:
    response = SimpleNamespace(headers={"x-request-id": "7"}, request=None, status_code=404)
    return RepositoryNotFoundError("404: no such repository", response=response)


CAUSES = {
    "an answer of the hub": out_of_reach(),
    "offline": LocalEntryNotFoundError("no such file in the cache"),
    "the system's": PermissionError(errno.EACCES, "Permission denied", "config.json"),
    "half a character": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "a value": ValueError("nothing to load"),
}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_the_loaders_error_is_kept_whatever_it_is(tiny, monkeypatch, cause):
    def fail(*_: object, **__: object) -> None:
        raise cause

    monkeypatch.setattr(AutoConfig, "from_pretrained", fail)
    with pytest.raises(type(cause), match="cannot load") as raised:
        on_cpu(tiny)
    assert isinstance(raised.value, ModelError)
    assert raised.value.__cause__ is cause


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_of_both_kinds_crosses_processes(cause, duplicate):
    error = duplicate(of_both_kinds(ModelError("cannot load 'it'"), cause))
    assert isinstance(error, ModelError)
    assert isinstance(error, type(cause))
    assert (str(error), repr(error)) == ("cannot load 'it'", "ModelError(\"cannot load 'it'\")")
    for name in ("errno", "filename", "request_id"):
        assert getattr(error, name, None) == getattr(cause, name, None)


def test_an_error_that_is_one_already_stays_as_it_is():
    error = PairError("pair 1")
    assert of_both_kinds(error, ValueError("of the tokenizer")) is error


class Intruder:
    """What runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("save", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_pickle_in_place_of_weights_is_never_run(tiny, tmp_path, save):
    folder, mark = tmp_path / "model", tmp_path / "it ran"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        save({"bert.embeddings.word_embeddings.weight": Intruder(mark)}, file)
    with pytest.raises(ModelError, match="a pickle that holds more than tensors, which is not run"):
        xenc.CrossEncoder(str(folder), device="cpu")
    assert not mark.exists()
    with (folder / "pytorch_model.bin").open("rb") as file, suppress(Exception):
        torch.load(file, weights_only=False)
    assert mark.exists()  # the pickle is one that would have run
