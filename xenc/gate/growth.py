"""Where the head became slower than the base: the stage, kernels, functions. Pure: no torch, no files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from ..profiling.kernel_names import INDUCTOR, Kernels, added

SLOWER_SHOWN: Final = 3
"""How many kernels at most are named only because they became slower."""


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """What a run consists of.

    Attributes:
        stages: operators called in each, and its seconds, by name.
        kernels: launches and seconds by name.
        functions: calls and own seconds of the package's functions, if no kernel ran.
    """

    stages: dict[str, tuple[int, float]] = field(default_factory=dict)
    kernels: dict[str, tuple[int, float]] = field(default_factory=dict)
    functions: dict[str, tuple[int, float]] = field(default_factory=dict)


def causes_of(head: Breakdown, base: Breakdown) -> tuple[str, ...]:
    """What grew from base to head, a line each: stages, kernels, functions."""
    return (
        *(f"stage {line}" for line in grown_stages(head.stages, base.stages)),
        *(f"kernel {line}" for line in grown_calls(head.kernels, base.kernels)),
        *(f"function {line}" for line in grown_calls(head.functions, base.functions)),
    )


def grown_stages(head: Kernels, base: Kernels) -> tuple[str, ...]:
    """The stages that call more operators, then the one whose seconds grew most, with its share.

    Args:
        head, base: operators and seconds by stage; none of a revision that marks no stages, which is said. A
            stage that one side lacks is not compared.
    """
    if not head and not base:
        return ()
    if not (head and base):
        return (f"not measured: {'base' if head else 'head'} has no stages",)
    both = [stage for stage in head if stage in base]
    more = [
        f"{stage}: {base[stage][0]} -> {head[stage][0]} operators"
        for stage in both
        if head[stage][0] > base[stage][0]
    ]
    growth = {stage: head[stage][1] - base[stage][1] for stage in both if head[stage][1] > base[stage][1]}
    if not growth:
        return tuple(more)
    most = max(growth, key=lambda stage: growth[stage])
    old, new = base[most][1], head[most][1]
    relative = f" ({new / old - 1:+.1%})" if old else ""
    share = growth[most] / sum(growth.values())
    return (*more, f"{most}: {1000 * old:.1f} ms -> {1000 * new:.1f} ms{relative}, {share:.0%} of the growth")


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
