"""Stored baselines, and facts that may grow: what is written is read back, and what is damaged is refused."""

from __future__ import annotations

import errno
import json
import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from correctness_tests.gate.test_campaign import files_of_at_most
from xenc.gate.errors import BaselineError
from xenc.gate.paired.accepted import NAME, read_accepted
from xenc.gate.stored.baseline import Baseline, SchemaError, baseline_path, read_baseline, write_baseline
from xenc.gate.stored.entry import Entry, Speedup


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


samples = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=5)


@given(st.dictionaries(st.text(min_size=1, max_size=30), samples, max_size=4))
def test_names_and_seconds_are_read_back_one_line_each(tmp_path_factory, seconds_by_name):
    path = tmp_path_factory.getbasetemp() / "read-back.json"
    write_baseline(path, baseline({name: entry(seconds) for name, seconds in seconds_by_name.items()}))
    read = read_baseline(path)
    assert {name: pytest.approx(each.seconds, rel=1e-5) for name, each in read.entries.items()} == {
        name: tuple(seconds) for name, seconds in seconds_by_name.items()
    }
    assert sum('"seconds"' in line for line in path.read_text().splitlines()) == len(seconds_by_name)


@pytest.mark.parametrize(("sessions", "spread"), [(1, None), (4, 0.0125)])
def test_everything_else_is_read_back_as_it_was(tmp_path, sessions, spread):
    speedup = Speedup(reference="plain", times=1.5, spread=spread)
    exact = {"graphs": 1, "peak_bytes": 123456789, "padded_share": 0.016949152542372881}
    written = baseline({"a": entry(spread=spread, speedup=speedup, exact=exact)}, sessions)
    write_baseline(tmp_path / "device.json", written)
    assert read_baseline(tmp_path / "device.json") == written


def test_devices_have_files_of_their_own(tmp_path):
    assert baseline_path(tmp_path, "NVIDIA H100 80GB HBM3").name == "nvidia-h100-80gb-hbm3.json"
    assert baseline_path(tmp_path, "NVIDIA H200") != baseline_path(tmp_path, "NVIDIA H100")


@pytest.mark.parametrize("content", [0, 1, 40, 150, "no json", "\x00\x01", "[]", "null", "3"])
def test_a_file_that_is_cut_short_or_no_baseline_is_refused_with_its_name_and_a_remedy(stored, content):
    stored.write_text(content if isinstance(content, str) else stored.read_text()[:content])
    with pytest.raises(BaselineError, match=r"device\.json.*restore it from git"):
        read_baseline(stored)


SOUND = {"seconds": [1.0], "margin": 0.1, "protocol": {}, "spread": 0.1}


def with_entry(**changes):
    return {"entries": {"a": {**SOUND, **changes}}}


@pytest.mark.parametrize(
    "damage",
    [
        {"entries": {"a": {}}},
        *(with_entry(seconds=seconds) for seconds in ([-1.0], [float("nan")], [], [10**400])),
        with_entry(margin=7),
        with_entry(spread=-0.1),
        with_entry(spread=None),
        with_entry(speedup={"reference": "plain", "times": -2, "spread": 0.1}),
        with_entry(exact={"kernels": -1}),
        {"entries": []},
        {"versions": None},
        *({"sessions": sessions} for sessions in (0, "3", 1)),
    ],
    ids=lambda damage: str(damage)[:80],
)
def test_damaged_content_is_refused_and_sound_content_is_read(stored, damage):
    content = {**json.loads(stored.read_text()), **with_entry()}
    stored.write_text(json.dumps(content))
    assert set(read_baseline(stored).entries) == {"a"}
    stored.write_text(json.dumps({**content, **damage}))
    with pytest.raises(BaselineError, match="is damaged"):
        read_baseline(stored)
    stored.write_text(json.dumps({**content, **damage, "schema": 99}))
    with pytest.raises(SchemaError, match="schema 99"):
        read_baseline(stored)


@pytest.mark.parametrize(
    ("broken", "error", "raised", "said"),
    [
        ("os.replace", KeyboardInterrupt(), KeyboardInterrupt, None),
        ("os.fsync", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), BaselineError, r"\(No space left"),
        ("os.fsync", None, BaselineError, r"\(File too large\).*free some disk space"),
    ],
    ids=["interrupted", "the disk is full", "the system cuts the write short"],
)
def test_a_write_that_fails_leaves_the_old_baseline_and_nothing_partial(
    stored, monkeypatch, broken, error, raised, said
):
    before = stored.read_text()
    monkeypatch.setattr(broken, mock.Mock(side_effect=error))
    with pytest.raises(raised, match=said), files_of_at_most(10_000 if error else 100):
        write_baseline(stored, baseline({"a": entry([1.0] * 100)}))
    assert stored.read_text() == before
    assert list(stored.parent.iterdir()) == [stored]
    with pytest.raises(BaselineError, match="cannot be written"):
        write_baseline(stored / "below" / "device.json", baseline({}))


ENTRY = {"kernels": 212, "reason": "one more fused kernel"}


def test_accepted_facts_are_read_for_their_own_device_without_their_reason(tmp_path):
    assert read_accepted(tmp_path, "cpu") == {}
    content = {"cpu": {"a": ENTRY, "b": {"padded_share": 0.02, "graphs": 2, "reason": "x"}}}
    (tmp_path / NAME).write_text(json.dumps(content))
    assert read_accepted(tmp_path, "cpu") == {"a": {"kernels": 212}, "b": {"padded_share": 0.02, "graphs": 2}}
    assert read_accepted(tmp_path, "cuda") == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "Expecting"),
        (b"", "Expecting"),
        (b"\xff\xfe{}", "codec can't decode"),
        ([], "no attribute"),
        ({"cpu": [ENTRY]}, "no attribute"),
        ({"cpu": {"a": 212}}, "no attribute"),
        ({"cpu": {"a": {**ENTRY, "launches": "3"}}}, "launches='3' is not a finite number"),
        ({"cpu": {"a": {"kernels": 212}}}, "has no reason"),
        *(({"cpu": {"a": {**ENTRY, "reason": reason}}}, "has no reason") for reason in ("  ", None)),
        *(
            ({"cpu": {"a": {**ENTRY, "kernels": value}}}, f"kernels={value!r} is not a finite number")
            for value in (True, "212", None, float("nan"))
        ),
        (b'{"cpu": {"a": {"kernels": 1e999, "reason": "x"}}}', "kernels=inf is not a finite number"),
    ],
)
def test_accepted_facts_that_cannot_be_used_are_refused_with_file_reason_and_remedy(tmp_path, content, why):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / NAME).write_bytes(text)
    with pytest.raises(BaselineError, match="restore it from git") as refused:
        read_accepted(tmp_path, "cpu")
    assert why in str(refused.value)
    assert str(tmp_path / NAME) in str(refused.value)
