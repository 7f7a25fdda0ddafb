"""Stored baselines: what is written is read back, and what is damaged says so."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenc import BaselineError
from xenc.gate.baseline import Baseline, SchemaError, baseline_path, read_baseline, write_baseline
from xenc.gate.verdict import Samples

names = st.text(min_size=1, max_size=30)


def entry(seconds=(1.0, 2.0, 3.0), margin=0.15):
    return Samples(seconds=tuple(seconds), protocol={"dtype": "float32"}, margin=margin)


def baseline(entries):
    return Baseline(device="a CPU", versions={"torch": "2.13"}, commit="abc", entries=entries)


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "device.json"
    write_baseline(path, baseline({"a.py::test[x]": entry(), "a.py::test[y]": entry()}))
    return path


@given(st.dictionaries(names, st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=5), max_size=4))
def test_what_is_written_is_read_back(tmp_path_factory, seconds_by_name):
    path = tmp_path_factory.mktemp("baseline") / "device.json"
    written = baseline({name: entry(seconds) for name, seconds in seconds_by_name.items()})
    write_baseline(path, written)
    read = read_baseline(path)
    assert (read.device, read.versions, read.commit) == (written.device, written.versions, written.commit)
    assert set(read.entries) == set(written.entries)
    for name, samples in read.entries.items():
        assert samples.seconds == pytest.approx(written.entries[name].seconds, rel=1e-5)


def test_one_benchmark_is_one_line_so_that_diffs_can_be_reviewed(stored):
    assert sum("a.py::test" in line for line in stored.read_text().splitlines()) == 2


def test_devices_have_files_of_their_own(tmp_path):
    assert baseline_path(tmp_path, "NVIDIA H100 80GB HBM3").name == "nvidia-h100-80gb-hbm3.json"
    assert baseline_path(tmp_path, "NVIDIA H200") != baseline_path(tmp_path, "NVIDIA H100")


@pytest.mark.parametrize("keep", [0, 1, 40, 150])
def test_a_truncated_file_is_refused_by_name(stored, keep):
    stored.write_text(stored.read_text()[:keep])
    with pytest.raises(BaselineError, match=r"device\.json.*restore it from git"):
        read_baseline(stored)


@pytest.mark.parametrize("content", ["no json", "\x00\x01", "[]", "null", "3"])
def test_what_is_not_a_baseline_is_refused(stored, content):
    stored.write_text(content)
    with pytest.raises(BaselineError, match=r"device\.json"):
        read_baseline(stored)


def test_another_schema_is_refused_and_named(stored):
    content = json.loads(stored.read_text())
    stored.write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(SchemaError, match="schema 99"):
        read_baseline(stored)


@pytest.mark.parametrize(
    "damage",
    [
        {"entries": {"a": {}}},
        {"entries": {"a": {"seconds": [-1.0], "margin": 0.1, "protocol": {}}}},
        {"entries": {"a": {"seconds": [float("nan")], "margin": 0.1, "protocol": {}}}},
        {"entries": {"a": {"seconds": [1.0], "margin": 7, "protocol": {}}}},
        {"entries": []},
        {"versions": None},
    ],
    ids=["empty entry", "negative", "nan", "margin", "entries", "versions"],
)
def test_damaged_content_is_refused(stored, damage):
    stored.write_text(json.dumps({**json.loads(stored.read_text()), **damage}))
    with pytest.raises(BaselineError, match="is damaged"):
        read_baseline(stored)


def test_an_interrupted_write_leaves_the_old_baseline(stored, monkeypatch):
    before = stored.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_baseline(stored, baseline({}))
    assert stored.read_text() == before
