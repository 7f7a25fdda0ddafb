"""Stored baselines: what is written is read back, and what is damaged says so."""

from __future__ import annotations

import errno
import json
import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenc import BaselineError
from xenc.gate.stored.baseline import Baseline, SchemaError, baseline_path, read_baseline, write_baseline
from xenc.gate.stored.entry import Entry, Speedup

names = st.text(min_size=1, max_size=30)


def entry(seconds=(1.0, 2.0, 3.0), spread=0.01, **more):
    return Entry(seconds=tuple(seconds), protocol={"dtype": "float32"}, margin=0.15, spread=spread, **more)


def baseline(entries, sessions=3):
    return Baseline(
        device="a CPU", versions={"torch": "2.13"}, commit="abc", sessions=sessions, entries=entries
    )


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


@pytest.mark.parametrize(("sessions", "spread"), [(1, None), (4, 0.0125)])
def test_sessions_spreads_speed_ups_and_counts_are_read_back_as_they_were(tmp_path, sessions, spread):
    speedup = Speedup(reference="plain", times=1.5, spread=spread)
    exact = {"graphs": 1, "peak_bytes": 123456789, "waste": 0.016949152542372881}
    written = baseline({"a": entry(spread=spread, speedup=speedup, exact=exact)}, sessions)
    write_baseline(tmp_path / "device.json", written)
    assert read_baseline(tmp_path / "device.json") == written


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


SOUND = {"seconds": [1.0], "margin": 0.1, "protocol": {}, "spread": 0.1}


@pytest.mark.parametrize(
    "damage",
    [
        {"entries": {"a": {}}},
        {"entries": {"a": {**SOUND, "seconds": [-1.0]}}},
        {"entries": {"a": {**SOUND, "seconds": [float("nan")]}}},
        {"entries": {"a": {**SOUND, "seconds": []}}},
        {"entries": {"a": {**SOUND, "seconds": [10**400]}}},
        {"entries": {"a": {**SOUND, "margin": 7}}},
        {"entries": {"a": {**SOUND, "spread": -0.1}}},
        {"entries": {"a": {**SOUND, "spread": None}}},
        {"entries": {"a": {**SOUND, "speedup": {"reference": "plain", "times": -2, "spread": 0.1}}}},
        {"entries": {"a": {**SOUND, "exact": {"kernels": -1}}}},
        {"entries": []},
        {"versions": None},
        {"sessions": 0},
        {"sessions": "3"},
        {"sessions": 1},
    ],
    ids=str,
)
def test_damaged_content_is_refused(stored, damage):
    stored.write_text(json.dumps({**json.loads(stored.read_text()), **damage}))
    with pytest.raises(BaselineError, match="is damaged"):
        read_baseline(stored)


def test_sound_content_is_read(stored):
    content = json.loads(stored.read_text())
    stored.write_text(json.dumps({**content, "entries": {"a": SOUND}}))
    assert set(read_baseline(stored).entries) == {"a"}


def test_an_interrupted_write_leaves_the_old_baseline(stored, monkeypatch):
    before = stored.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_baseline(stored, baseline({}))
    assert stored.read_text() == before
    assert list(stored.parent.iterdir()) == [stored]


def test_a_full_disk_leaves_the_old_baseline_and_nothing_partial(stored, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = stored.read_text()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        BaselineError, match=r"device\.json cannot be written \(No space left.*unchanged: free"
    ):
        write_baseline(stored, baseline({}))
    assert stored.read_text() == before
    assert list(stored.parent.iterdir()) == [stored]


def test_a_write_that_the_system_cuts_short_leaves_the_old_baseline(stored):
    """A real one: no file may grow beyond 100 bytes."""
    before = stored.read_text()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(BaselineError, match=r"cannot be written \(File too large\)"):
            write_baseline(stored, baseline({"a": entry([1.0] * 100)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stored.read_text() == before
    assert list(stored.parent.iterdir()) == [stored]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match="cannot be written"):
        write_baseline(tmp_path / "file" / "device.json", baseline({}))
