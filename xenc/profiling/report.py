"""A `Profile` -> Markdown, as tables that also read well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .facts import Profile
from .findings import findings
from .kernel_names import by_class, class_of
from .stages import STAGES

TOP: Final = 15
"""Kernels that get a row of their own."""

DISTURBED: Final = 1.5
"""Times that a pass may take what its stages take by themselves; passes wait for nobody but the stages."""

LONGEST_NAME: Final = 64
"""Characters of a kernel's name."""

_RIGHT: Final = "0123456789-"


def markdown(profile: Profile, top: int = TOP) -> str:
    """The whole report."""
    sections = (
        f"# Profile of {profile.subject.model}",
        _subject(profile),
        f"## Speed\n\n{_speed(profile)}",
        f"## What it says\n\n{_findings(profile)}",
        f"## Where the time goes, by stage\n\n{_stages(profile)}",
        f"## Where the time goes, by kernel\n\n{_kernels(profile, top)}",
        f"## Against the hardware's limit\n\n{_limit(profile)}",
        f"## How it was measured\n\n{_method(profile)}",
    )
    return "\n\n".join(sections) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of one width; numbers stand on the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    right = [all(cell[:1] in _RIGHT for cell in column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + ":" if at_right else "-" * width
        for width, at_right in zip(widths, right, strict=True)
    ]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def _subject(profile: Profile) -> str:
    subject = profile.subject
    compiled = "not compiled" if subject.compile_mode is None else f"compile_mode={subject.compile_mode!r}"
    return (
        f"Execution {subject.execution} ({subject.layout} batches, {compiled}) in {subject.dtype} on "
        f"{subject.device} ({subject.device_name}, {subject.threads} CPU threads), torch {subject.torch}."
    )


def _speed(profile: Profile) -> str:
    work, median_s = profile.work, profile.median_s
    rows = [
        ["pairs/s", f"{work.pairs / median_s:,.1f}"],
        ["tokens/s", f"{work.tokens / median_s:,.0f}"],
        ["median ms per pass", f"{1000 * median_s:,.1f}"],
        ["spread (standard deviation / median)", f"{profile.spread:.1%}"],
        ["passes", str(len(profile.seconds))],
        ["pairs per pass", f"{work.pairs:,}"],
        ["tokens per pass", f"{work.tokens:,}"],
        ["batches per pass", f"{work.batches:,}"],
        ["waste (padding / all tokens)", f"{work.waste:.1%}"],
        [f"pairs cut at {work.max_length} tokens", f"{work.truncated_pairs:,}"],
    ]
    return table(["what", "measured"], rows)


def _findings(profile: Profile) -> str:
    lines = []
    for finding in findings(profile):
        lines.append(f"- {finding.says}")
        if finding.hint is not None:
            lines.append(f"  - Next: {finding.hint}.")
    return "\n".join(lines)


def _stages(profile: Profile) -> str:
    shares = profile.stage_shares
    rows = [
        [stage, f"{1000 * profile.stages[stage]:,.2f}", f"{shares[stage]:.1%}"]
        for stage in STAGES
        if stage in profile.stages
    ]
    together, whole = sum(profile.stages.values()), profile.median_s
    compared = f"Together {1000 * together:,.1f} ms, of a pass that takes {1000 * whole:,.1f} ms: "
    if together < whole / DISTURBED:
        why = (
            "they cannot be so much shorter than the whole. Something else kept the machine busy in one of "
            "the two; **believe no share here, and measure again when it is quiet**."
        )
    else:
        why = "texts are tokenized on other threads while the device runs."
    return f"{table(['stage', 'ms per pass', 'share'], rows)}\n\n{compared}{why}"


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
    return f"`{name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + '...'}`"


def _limit(profile: Profile) -> str:
    limit = profile.limit
    busy = profile.busy_share
    rows = [
        ["MFU, FLOPs of real tokens / (time x peak)", f"{profile.mfu:.1%}"],
        ["the matrix products alone / time", f"{profile.gemm_share:.1%}"],
        ["time with a kernel running / time", "unknown" if busy is None else f"{busy:.1%}"],
    ]
    peak = f"{limit.peak_flops_per_s / 1e12:,.4g} TFLOP/s ({limit.peak_source})"
    return f"{table(['what', 'share'], rows)}\n\nPeak in {profile.subject.dtype}: {peak}."


def _method(profile: Profile) -> str:
    count = len(profile.seconds)
    warmup_s = profile.compilation.warmup_s
    return (
        f"After a warm-up of {warmup_s:.1f} s and one pass that does not count: {count} timed pass(es) with "
        f"nothing else in the way, {count} by stage, and one traced, of which the kernels are. A watch was "
        "on from the first to the last of them: nothing compiled in any."
    )
