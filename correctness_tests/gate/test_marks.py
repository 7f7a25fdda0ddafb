"""What a test's markers say of its device and of its rule."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from xenc.gate.marks import RULES, device_of, rule_of

CPU, GPU = RULES["cpu"], RULES["cuda"]


def item(**marks):
    """A test with marks, by name: a mark, or its arguments."""

    def mark(name, given):
        return given if isinstance(given, pytest.MarkDecorator) else getattr(pytest.mark, name)(**given)

    found = {name: mark(name, given).mark for name, given in marks.items()}
    return SimpleNamespace(nodeid="t.py::test_it", get_closest_marker=found.get)


@pytest.mark.parametrize(
    ("marks", "rule"),
    [
        ({}, CPU),
        ({"cpu": {}}, CPU),
        ({"gpu": {}}, GPU),
        ({"gate": {}}, CPU),
        ({"gate": {"margin": 0.03}}, replace(CPU, margin=0.03)),
        ({"gate": {"must_see": 0.2}}, replace(CPU, must_see=0.2)),
        ({"gpu": {}, "gate": {"margin": 0.001, "must_see": 0.01}}, replace(GPU, margin=0.001, must_see=0.01)),
    ],
)
def test_a_rule_is_the_devices_but_for_what_the_marker_says(marks, rule):
    assert rule_of(item(**marks)) == rule
    assert device_of(item(**marks)) == ("cuda" if "gpu" in marks else "cpu")


@pytest.mark.parametrize(
    "mark",
    [
        pytest.mark.gate(0.01),
        pytest.mark.gate(looks=(2, 3)),
        pytest.mark.gate(margin="1%"),
        pytest.mark.gate(margin=None),
        pytest.mark.gate(margin=0.0),
        pytest.mark.gate(margin=-0.01),
        pytest.mark.gate(margin=0.06),
        pytest.mark.gate(must_see=0.01),
        pytest.mark.gate(must_see=1.0),
        pytest.mark.gate(margin=5, must_see=10),
        pytest.mark.gate(margin=float("nan")),
    ],
    ids=lambda mark: f"{mark.args or ''}{mark.kwargs}",
)
def test_a_marker_that_makes_no_rule_is_refused_with_the_test_and_the_remedy(mark):
    with pytest.raises(
        pytest.UsageError, match=r"t\.py::test_it: the marker gate takes margin=.*0 < margin <"
    ):
        rule_of(item(gate=mark))
