"""What a test's markers and fixtures say: its device, its rule, and whether the gate judges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from .paired.rule import Rule

MARKERS: Final = (
    "cpu: measured on the CPU",
    "gpu: measured on a CUDA device",
    "paired: a test of the gate that is only measured with --against",
    "gate(margin, must_see): with --against, the slowdown that is tolerated, and the one that must not pass",
)

RULES: Final = {
    "cpu": Rule(margin=0.01, must_see=0.05),
    "cuda": Rule(margin=0.005, must_see=0.02, usual_spread=0.002),
}
"""The rule of a test without a marker `gate`, by torch's device type."""

DEVICES: Final = {"cpu": "cpu", "gpu": "cuda"}
"""Torch's device type of each marker."""


def is_benchmark(item: pytest.Item) -> bool:
    """Whether a test uses pytest-benchmark's fixture, as the gate's own does."""
    return "benchmark" in getattr(item, "fixturenames", ())


def uses_gate(item: pytest.Item) -> bool:
    """Whether a test uses the `gate` fixture, so that another revision can be measured beside."""
    return "gate" in getattr(item, "fixturenames", ()) and is_benchmark(item)


def device_of(item: pytest.Item) -> str:
    """Torch's device type of a test's marker; "cpu" without one."""
    return next((device for marker, device in DEVICES.items() if item.get_closest_marker(marker)), "cpu")


def rule_of(item: pytest.Item) -> Rule:
    """The margins of a test.

    Raises:
        pytest.UsageError: its marker `gate` has an argument that no rule has.
    """
    usual, marker = RULES[device_of(item)], item.get_closest_marker("gate")
    if marker is None:
        return usual
    given = {"margin": usual.margin, "must_see": usual.must_see, **marker.kwargs}
    known = not marker.args and set(given) == {"margin", "must_see"}
    numbers = all(isinstance(share, (int, float)) for share in given.values())
    if not known or not numbers or not 0 < given["margin"] < given["must_see"] < 1:
        raise pytest.UsageError(
            f"{item.nodeid}: the marker gate takes margin=... and must_see=..., fractions with "
            f"0 < margin < must_see < 1; it has {marker.args or ''}{marker.kwargs}."
        )
    return Rule(usual_spread=usual.usual_spread, **given)


def leave_out(config: pytest.Config, items: list[pytest.Item], unwanted: Sequence[pytest.Item]) -> None:
    """Deselect items, as -m and -k do."""
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]
