"""A `Profile` -> Markdown, as tables that also read well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..serving.spans import STAGES
from .findings import findings
from .kernel_names import by_class, class_of
from .profile import Profile

TOP: Final = 15
"""Kernels listed by name."""

LONGEST_NAME: Final = 64
"""Characters of a kernel's name."""


def markdown(profile: Profile, top: int = TOP) -> str:
    """The whole report, with the `top` slowest kernels by name."""
    said = (f"- {says}" + (f"\n  - Next: {hint}." if hint else "") for says, hint in findings(profile))
    busy = profile.busy_share
    limits = [
        ["MFU, FLOPs of real tokens / (time x peak)", f"{profile.mfu:.1%}"],
        ["time of the matrix products by themselves / time", f"{profile.gemm_share:.1%}"],
        ["time with a kernel running / time", "unknown" if busy is None else f"{busy:.1%}"],
    ]
    peak = f"{profile.peak.flops_per_s / 1e12:,.4g} TFLOP/s ({profile.peak.source})"
    sections = (
        f"# Profile of {profile.model}\n\n{profile.described}",
        f"## Speed\n\n{_speed(profile)}",
        "## What it says\n\n" + "\n".join(said),
        f"## Where the time goes, by stage\n\n{_stages(profile)}",
        f"## Where the time goes, by kernel\n\n{_kernels(profile, top)}",
        "## Against the hardware's limit",
        table(["what", "share"], limits),
        f"Peak in {profile.dtype}: {peak}.",
        f"## How it was measured\n\nAfter a warm-up of {profile.warmup_s:.1f} s and one pass that does not "
        f"count: {len(profile.seconds)} timed pass(es), as many by stage, and one under torch.profiler for "
        "the kernels. Compilation was watched throughout: nothing compiled.",
    )
    return "\n\n".join(sections) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded cells; columns of numbers are aligned to the right."""
    columns = []
    for name, *cells in zip(header, *rows, strict=True):
        width = max(3, len(name), *map(len, cells))
        if all(cell[:1] in "0123456789-" for cell in cells):
            column = [name.rjust(width), "-" * (width - 1) + ":", *(cell.rjust(width) for cell in cells)]
        else:
            column = [name.ljust(width), "-" * width, *(cell.ljust(width) for cell in cells)]
        columns.append(column)
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def _speed(profile: Profile) -> str:
    report, median_s = profile.report, profile.median_s
    rows = [
        ["pairs/s", f"{report.pairs / median_s:,.1f}"],
        ["tokens/s", f"{profile.tokens / median_s:,.0f}"],
        ["median ms per pass", f"{1000 * median_s:,.1f}"],
        ["spread (standard deviation / median)", f"{profile.spread:.1%}"],
        ["passes", str(len(profile.seconds))],
        ["pairs per pass", f"{report.pairs:,}"],
        ["tokens per pass", f"{profile.tokens:,}"],
        ["batches per pass", f"{report.batches:,}"],
        ["waste (padding / all tokens)", f"{report.waste:.1%}"],
        [f"pairs cut at {profile.max_length} tokens", f"{report.truncated_pairs:,}"],
    ]
    return table(["what", "measured"], rows)


def _stages(profile: Profile) -> str:
    together = sum(profile.stages.values())
    rows = [
        [stage, f"{1000 * profile.stages[stage]:,.2f}", f"{profile.stages[stage] / together:.1%}"]
        for stage in STAGES
        if stage in profile.stages
    ]
    return (
        f"{table(['stage', 'ms per pass', 'share'], rows)}\n\n"
        f"Together {1000 * together:,.1f} ms, of a pass that takes {1000 * profile.median_s:,.1f} ms: texts "
        "are tokenized on other threads while the device runs. If a pass takes much longer than its stages "
        "together, something else kept the machine busy: measure again."
    )


def _kernels(profile: Profile, top: int) -> str:
    kernels = profile.traced.kernels
    whole = sum(seconds for _, seconds in kernels.values())

    def numbers(count: int, seconds: float) -> list[str]:
        return [f"{count:,}", f"{1000 * seconds:,.2f}", f"{seconds / whole:.1%}"]

    classes = [[kind, *numbers(*found)] for kind, found in by_class(kernels).items()]
    slowest = sorted(kernels.items(), key=lambda item: -item[1][1])
    rows = [[_short(name), class_of(name), *numbers(*found)] for name, found in slowest[:top]]
    left = len(kernels) - len(rows)
    more = f"\n\n{left} more kernel(s) take the rest." if left else ""
    return (
        f"{table(['class', 'count', 'ms', 'share'], classes)}\n\n"
        f"{table(['kernel', 'class', 'count', 'ms', 'share'], rows)}{more}"
    )


def _short(name: str) -> str:
    name = name.replace("|", "/").replace("`", "'")
    return f"`{name if len(name) <= LONGEST_NAME else f'{name[: LONGEST_NAME - 3]}...'}`"
