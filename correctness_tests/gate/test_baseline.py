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
from xenc.gate.growth import Breakdown
from xenc.gate.paired.accepted import NAME, read_accepted
from xenc.gate.stored.baseline import (
    Baseline,
    Entry,
    SchemaError,
    Session,
    baseline_path,
    read_baseline,
    write_baseline,
)  # fmt: skip


def entry(seconds=(1.0, 2.0, 3.0), **more):
    sessions = (Session(seconds=tuple(seconds)),)
    return Entry(**{"protocol": {"dtype": "float32"}, "margin": 0.15, "sessions": sessions, **more})


def baseline(entries):
    return Baseline(device="a CPU", versions={"torch": "2.13"}, commit="abc", entries=entries)


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
    assert {name: each.seconds for name, each in read.entries.items()} == {
        name: tuple(seconds) for name, seconds in seconds_by_name.items()
    }
    assert sum('"seconds"' in line for line in path.read_text().splitlines()) == len(seconds_by_name)


def test_everything_else_is_read_back_as_it_was(tmp_path):
    sessions = tuple(Session(seconds=(1.0, level), reference_seconds=(2.0, 3.0)) for level in (1.1, 1.2))
    exact = {"graphs": 1, "peak_bytes": 123456789, "padded_share": 0.016949152542372881}
    breakdown = Breakdown(
        stages={"encode": (9, 0.5)}, kernels={"mm": (3, 0.25)}, functions={"a.py:f": (2, 0.1)}
    )
    more = {"reference": "plain", "exact": exact, "breakdown": breakdown, "sessions": sessions}
    written = baseline({"a": entry(**more)})
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


SOUND = {"margin": 0.1, "protocol": {}, "sessions": [{"seconds": [1.0]}]}


def with_entry(**changes):
    return {"entries": {"a": {**SOUND, **changes}}}


def with_rounds(*sessions, **changes):
    return with_entry(sessions=[{"seconds": seconds} for seconds in sessions], **changes)


@pytest.mark.parametrize(
    "damage",
    [
        {"entries": {"a": {}}},
        *(with_rounds(seconds) for seconds in ([-1.0], [float("nan")], [], [10**400], ["1"])),
        with_rounds([1.0], [1.0, 1.0]),
        with_rounds([1.0], reference="plain"),
        with_entry(sessions=[{"seconds": [1.0], "reference_seconds": [2.0]}]),
        with_entry(sessions=[]),
        with_entry(margin=7),
        with_entry(exact={"kernels": "1"}),
        with_entry(exact={"kernels": float("inf")}),
        with_entry(breakdown={"kernels": {"mm": [1]}}),
        with_entry(what="is this?"),
        {"entries": {"a": SOUND, "b": with_rounds([1.0], [1.0])["entries"]["a"]}},
        {"entries": []},
        {"versions": None},
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
