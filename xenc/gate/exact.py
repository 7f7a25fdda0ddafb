"""Exact facts, such as graph and kernel counts: compared between head and base without statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from ..compiling.watch import CompileReport

Number = float | int


class Rule(Enum):
    """How a fact of the head is judged."""

    NONE_ALLOWED = "must be zero, whatever the base's value is"
    NO_GROWTH = "at most the base's value"
    OWN_TOLERANCE = "at most the head's own tolerance, whatever the base's value is"
    OWN_FLOOR = "at least the head's own floor, whatever the base's value is"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A fact that the gate knows how to judge.

    Attributes:
        label: its name in reports.
        rule: how it is judged.
        unit: "" for counts, "share" for fractions of one, "bytes".
        absolute: growth up to this amount is ignored.
        relative: growth up to this fraction of the old value is ignored too.
        bound: the key under which its tolerance or floor is given; "" if it has none.
    """

    label: str
    rule: Rule = Rule.NO_GROWTH
    unit: str = ""
    absolute: float = 0.0
    relative: float = 0.0
    bound: str = ""


FACTS: Final[dict[str, Fact]] = {
    "graphs": Fact(label="graphs"),
    "recompiles": Fact(label="recompiles", rule=Rule.NONE_ALLOWED),
    "graph_breaks": Fact(label="graph breaks", rule=Rule.NONE_ALLOWED),
    "eager_fallbacks": Fact(label="eager fallbacks", rule=Rule.NONE_ALLOWED),
    "cudagraph_recordings": Fact(label="CUDA graph recordings", rule=Rule.NONE_ALLOWED),
    "cudagraph_skips": Fact(label="CUDA graph skips", rule=Rule.NONE_ALLOWED),
    "kernels": Fact(label="kernels"),
    "python_calls": Fact(label="Python calls"),
    # allocators round up and libraries choose workspaces: smaller differences do not come from the code
    "peak_bytes": Fact(label="peak memory", unit="bytes", relative=0.01),
    "output_error": Fact(label="output error", rule=Rule.OWN_TOLERANCE, bound="output_tolerance"),
}
"""How facts are judged, by their keys; a suite may add to it. Any other fact is a count that may not grow."""


@dataclass(frozen=True, kw_only=True)
class ExactComparison:
    """The facts of head compared with base: one line of text for each that differs.

    Attributes:
        worse: facts that break their rule; each makes the verdict REGRESSED.
        better: facts that are smaller than the base's.
        unmeasured: facts that the base has and the head lacks, or whose value is not finite.
        notes: growth that a reviewer accepted, and facts that the base lacks.
    """

    worse: tuple[str, ...]
    better: tuple[str, ...]
    unmeasured: tuple[str, ...]
    notes: tuple[str, ...]


def changed_facts(
    head: Mapping[str, Number | None],
    base: Mapping[str, Number | None],
    accepted: Mapping[str, Number | None] | None = None,
) -> ExactComparison:
    """Compare the facts of one configuration.

    Args:
        head: facts by the keys of FACTS, and the bound of each that has one.
        base: the same for the base; None or absent if it was not measured.
        accepted: values that a reviewer accepted: growth up to them is allowed.
    """
    bounds = {fact.bound for fact in FACTS.values()}
    own = [name for name in {**head, **base} if name not in FACTS and name not in bounds]
    lines: dict[str, list[str]] = {"worse": [], "better": [], "unmeasured": [], "notes": []}
    for name, fact in {**FACTS, **{name: Fact(label=name.replace("_", " ")) for name in own}}.items():
        ours, theirs = head.get(name), base.get(name)
        if ours is None and theirs is None:
            continue
        if fact.bound:
            where, why = _within(fact, ours, head.get(fact.bound))
        else:
            where, why = _compare(fact, ours, theirs, (accepted or {}).get(name))
        if where:
            lines[where].append(f"{fact.label}: {_change(fact, theirs, ours)}{why}")
    return ExactComparison(**{where: tuple(found) for where, found in lines.items()})


def _compare(
    fact: Fact, ours: Number | None, theirs: Number | None, accepted: Number | None
) -> tuple[str, str]:
    """The list of ExactComparison that a fact belongs to ("" for none), and a suffix for its line."""
    if ours is None or not math.isfinite(ours):
        return "unmeasured", ""
    if fact.rule is Rule.NONE_ALLOWED and ours > 0:
        return "worse", ", and none is allowed"
    if theirs is None or not math.isfinite(theirs):
        return ("notes", ", not measured on the base") if ours or fact.rule is Rule.NO_GROWTH else ("", "")
    if _grew(fact, theirs, ours):
        if accepted is not None and not _grew(fact, accepted, ours):
            return "notes", ", accepted"
        return "worse", ""
    return ("better", "") if _grew(fact, ours, theirs) else ("", "")


def _within(fact: Fact, value: Number | None, bound: Number | None) -> tuple[str, str]:
    """Like `_compare`, for a fact that has a bound. NaN is outside every bound."""
    floor = fact.rule is Rule.OWN_FLOOR
    if value is None or bound is None:
        return "unmeasured", "" if value is None else f", no {'floor' if floor else 'tolerance'} is given"
    if floor:
        return ("", "") if value >= bound else ("worse", f", below the floor {bound:.3g}")
    return ("", "") if value <= bound else ("worse", f", beyond the tolerance {bound:.3g}")


def _grew(fact: Fact, old: Number, new: Number) -> bool:
    return new - old > max(fact.absolute, fact.relative * abs(old))


def _change(fact: Fact, old: Number | None, new: Number | None) -> str:
    grown = f" ({new / old - 1:+.1%})" if fact.unit == "bytes" and old and new is not None else ""
    texts = _number(fact, old), _number(fact, new)
    if texts[0] == texts[1] and None not in (old, new) and old != new:  # more digits, to show the difference
        texts = f"{old:.9g}", f"{new:.9g}"
    return f"{texts[0]} -> {texts[1]}{grown}"


def _number(fact: Fact, value: Number | None) -> str:
    if value is None:
        return "none"
    if fact.unit == "share":
        return f"{value:.1%}"
    if fact.unit == "bytes":
        return f"{value / 1e6:.1f} MB" if abs(value) >= 1e6 else f"{value:,.0f} bytes"
    return f"{value:.3g}" if fact.bound else f"{value:g}"


def badness(name: str, value: Number | None) -> float:
    """A sort key: the worse of two values of a fact has the larger key.

    None is the best value, since another process may have measured the fact. NaN is the worst.
    """
    if value is None:
        return -math.inf
    if math.isnan(value):
        return math.inf
    return -value if name in FACTS and FACTS[name].rule is Rule.OWN_FLOOR else value


def compile_counts(report: CompileReport) -> dict[str, Any]:
    """What compiled in a timed region: counts, and the reasons as text, for a benchmark's `extra_info`."""
    return {
        "recompiles": report.graphs + report.cudagraph_recordings,
        "graph_breaks": len(report.graph_breaks),
        "eager_fallbacks": len(report.eager_fallbacks),
        "cudagraph_skips": report.cudagraph_skips,
        "compile_findings": "" if report.clean else report.describe(),
    }


def broken_laws(info: Mapping[str, Any]) -> list[str]:
    """One line for each fact that fails a benchmark whatever the baseline holds.

    Args:
        info: the benchmark's `extra_info`: the keys of `compile_counts`, and facts with their bounds.
    """
    broken = []
    counted = [
        f"{info[key]} {key.replace('_', ' ')}"
        for key in ("recompiles", "graph_breaks", "eager_fallbacks", "cudagraph_skips")
        if info.get(key)
    ]
    if counted:
        broken.append(f"{', '.join(counted)} in the timed region:\n{info.get('compile_findings', '')}")
    for name, fact in FACTS.items():
        value = info.get(name)
        if not fact.bound or value is None:
            continue
        _, why = _within(fact, value, info.get(fact.bound))
        if why:
            broken.append(f"{fact.label} {value:.3g}{why}")
    return broken
