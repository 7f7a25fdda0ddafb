"""Where the head became slower than the base: the stage, kernels, functions. Pure: no torch, no files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ...profiling.kernel_names import INDUCTOR, Kernels, added

SLOWER_SHOWN: Final = 3
"""How many kernels at most are named only because they became slower."""


def grown_stage(head: Mapping[str, float], base: Mapping[str, float]) -> str | None:
    """The stage whose seconds grew most, and its share of all growth, as text; None if no stage grew.

    Args:
        head, base: seconds by stage; none of a revision that marks no stages, which is said. A stage without
            a number on one side is not compared.
    """
    if not head and not base:
        return None
    if not (head and base):
        return f"not measured: {'base' if head else 'head'} has no stages"
    growth = {stage: head[stage] - base[stage] for stage in head if stage in base}
    grown = {stage: seconds for stage, seconds in growth.items() if seconds > 0}
    if not grown:
        return None
    most = max(grown, key=lambda stage: grown[stage])
    old, new = base[most], head[most]
    relative = f" ({new / old - 1:+.1%})" if old else ""
    share = grown[most] / sum(grown.values())
    return f"{most}: {1000 * old:.1f} ms -> {1000 * new:.1f} ms{relative}, {share:.0%} of the growth"


def grown_calls(head: Kernels, base: Kernels) -> tuple[str, ...]:
    """One line for each kernel or function that only the head has, calls more often, or that slowed most.

    Numbers in the names of Inductor's kernels are removed first.
    """
    ours, theirs = _alike(head), _alike(base)
    appeared = [
        f"appeared: {name} x{count} ({1000 * seconds:.1f} ms)"
        for name, (count, seconds) in sorted(ours.items(), key=lambda item: -item[1][1])
        if name not in theirs
    ]
    both = [name for name in ours if name in theirs]
    oftener = [
        f"more often: {name} {theirs[name][0]} -> {ours[name][0]}"
        for name in sorted(both, key=lambda name: theirs[name][0] - ours[name][0])
        if ours[name][0] > theirs[name][0]
    ]
    growth = {name: ours[name][1] - theirs[name][1] for name in both}
    slower = [
        f"slower: {name} {1000 * theirs[name][1]:.1f} ms -> {1000 * ours[name][1]:.1f} ms"
        for name in sorted(both, key=lambda name: -growth[name])[:SLOWER_SHOWN]
        if growth[name] > 0
    ]
    return (*appeared, *oftener, *slower)


def _alike(kernels: Kernels) -> dict[str, tuple[int, float]]:
    def alike(name: str) -> str:
        return re.sub(r"^graph_\d+_|_\d+$", "", name) if INDUCTOR.match(name) else name

    return added((alike(name), count, seconds) for name, (count, seconds) in kernels.items())
