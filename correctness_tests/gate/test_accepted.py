"""Counts that may grow: nothing is accepted that a reviewer did not write down with a reason."""

from __future__ import annotations

import json

import pytest

from xenc.errors import BaselineError
from xenc.gate.paired.accepted import NAME, read_accepted

ENTRY = {"kernels": 212, "reason": "one more fused kernel"}


@pytest.fixture
def written(tmp_path):
    def write(content):
        text = content if isinstance(content, str) else json.dumps(content)
        tmp_path.joinpath(NAME).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_without_the_file_nothing_is_accepted(tmp_path):
    assert read_accepted(tmp_path, "cpu") == {}


def test_counts_are_read_without_their_reason(written):
    directory = written({"cpu": {"a": ENTRY, "b": {"padded_share": 0.02, "graphs": 2, "reason": "x"}}})
    assert read_accepted(directory, "cpu") == {
        "a": {"kernels": 212},
        "b": {"padded_share": 0.02, "graphs": 2},
    }


def test_what_one_device_may_another_may_not(written):
    assert read_accepted(written({"cpu": {"a": ENTRY}}), "cuda") == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "Expecting"),
        ("", "Expecting"),
        ([], "no attribute"),
        ({"cpu": [ENTRY]}, "no attribute"),
        ({"cpu": {"a": 212}}, "no attribute"),
        ({"cpu": {"a": {**ENTRY, "launches": 3}}}, "launches is not one of graphs, "),
        ({"cpu": {"a": {"kernels": 212}}}, "has no reason"),
        ({"cpu": {"a": {"kernels": 212, "reason": "  "}}}, "has no reason"),
        ({"cpu": {"a": {"kernels": 212, "reason": None}}}, "has no reason"),
        ({"cpu": {"a": {**ENTRY, "kernels": True}}}, "kernels=True is not a finite number"),
        ({"cpu": {"a": {**ENTRY, "kernels": "212"}}}, "kernels='212' is not a finite number"),
        ({"cpu": {"a": {**ENTRY, "kernels": None}}}, "kernels=None is not a finite number"),
        ('{"cpu": {"a": {"kernels": NaN, "reason": "x"}}}', "kernels=nan is not a finite number"),
        ('{"cpu": {"a": {"kernels": 1e999, "reason": "x"}}}', "kernels=inf is not a finite number"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_file_the_reason_and_a_remedy(written, content, why):
    directory = written(content)
    with pytest.raises(BaselineError, match="restore it from git") as refused:
        read_accepted(directory, "cpu")
    assert why in str(refused.value)
    assert str(directory / NAME) in str(refused.value)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    tmp_path.joinpath(NAME).write_bytes(b"\xff\xfe{}")
    with pytest.raises(BaselineError, match="cannot be used"):
        read_accepted(tmp_path, "cpu")
