"""Facts that need no statistics: old value -> new value, and a change passes or fails on them exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from ..watch import CompileReport

Number = float | int


class Rule(Enum):
    """How a fact of the head is judged."""

    NONE_ALLOWED = "none is allowed, whatever the base did"
    NO_GROWTH = "no more than the base's"
    OWN_TOLERANCE = "no more than its own bound, whatever the base's is"
    OWN_FLOOR = "no less than its own bound, whatever the base's is"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A known fact.

    Attributes:
        label: its name in words.
        rule: how it is judged.
        unit: "" for counts, "share" for fractions of one, "bytes".
        absolute, relative: growth that is none: the larger of the two counts.
        bound: the name of the number beside it that an own tolerance or floor is.
    """

    label: str
    rule: Rule = Rule.NO_GROWTH
    unit: str = ""
    absolute: float = 0.0
    relative: float = 0.0
    bound: str = ""


FACTS: Final[Mapping[str, Fact]] = {
    "graphs": Fact(label="graphs"),
    "recompiles": Fact(label="recompiles", rule=Rule.NONE_ALLOWED),
    "graph_breaks": Fact(label="graph breaks", rule=Rule.NONE_ALLOWED),
    "eager_fallbacks": Fact(label="eager fallbacks", rule=Rule.NONE_ALLOWED),
    "cudagraph_recordings": Fact(label="CUDA graph recordings", rule=Rule.NONE_ALLOWED),
    "cudagraph_skips": Fact(label="CUDA graph skips", rule=Rule.NONE_ALLOWED),
    "kernels": Fact(label="kernels"),
    # sums of integers, divided: the same batches give the same share but for the last bits
    "padded_share": Fact(label="padded share", unit="share", absolute=1e-9),
    # allocators round blocks up and libraries pick workspaces: less than that is no change of the code
    "peak_bytes": Fact(label="peak memory", unit="bytes", relative=0.01),
    "output_error": Fact(label="output error", rule=Rule.OWN_TOLERANCE, bound="output_tolerance"),
    "kendall_tau": Fact(label="Kendall's tau", rule=Rule.OWN_FLOOR, bound="kendall_floor"),
    "ndcg_loss": Fact(label="nDCG lost", rule=Rule.OWN_TOLERANCE, bound="ndcg_tolerance"),
}
"""What can be compared, by name. Their bounds may stand beside them."""

_BOUNDS: Final = frozenset(fact.bound for fact in FACTS.values() if fact.bound)


@dataclass(frozen=True, kw_only=True)
class ExactComparison:
    """The facts of head against base, one line each.

    Attributes:
        worse: broken; a change must not merge with any.
        better: smaller than the base's.
        unmeasured: the base has a number and the head none, or one that is not finite.
        notes: growth that was accepted, and facts that the base has no number for.
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
        head: facts by the names of FACTS, with the bound of each that has one.
        base: the same of the base; None or absent where it has none.
        accepted: what a reviewer accepted. Growth up to it is no break.

    Raises:
        ValueError: a name that is not in FACTS, for a fact that nobody judges would pass silently.
    """
    unknown = (set(head) | set(base)) - set(FACTS) - _BOUNDS
    if unknown:
        raise ValueError(f"unknown facts {sorted(unknown)}: add them to FACTS")
    lines: dict[str, list[str]] = {"worse": [], "better": [], "unmeasured": [], "notes": []}
    for name, fact in FACTS.items():
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
    """Which list a fact belongs in, "" for none, and what is added to its line."""
    if ours is None or not math.isfinite(ours):
        return "unmeasured", ""
    if fact.rule is Rule.NONE_ALLOWED and ours > 0:
        return "worse", ", and none is allowed"
    if theirs is None or not math.isfinite(theirs):
        return ("notes", ", nothing to compare with") if ours or fact.rule is Rule.NO_GROWTH else ("", "")
    if _grew(fact, theirs, ours):
        if accepted is not None and not _grew(fact, accepted, ours):
            return "notes", ", accepted"
        return "worse", ""
    return ("better", "") if _grew(fact, ours, theirs) else ("", "")


def _within(fact: Fact, value: Number | None, bound: Number | None) -> tuple[str, str]:
    """As `_compare`; NaN is within nothing."""
    floor = fact.rule is Rule.OWN_FLOOR
    if value is None or bound is None:
        return "unmeasured", "" if value is None else f", no {'floor' if floor else 'tolerance'} is known"
    if floor:
        return ("", "") if value >= bound else ("worse", f", below the floor {bound:.3g}")
    return ("", "") if value <= bound else ("worse", f", beyond the tolerance {bound:.3g}")


def _grew(fact: Fact, old: Number, new: Number) -> bool:
    return new - old > max(fact.absolute, fact.relative * abs(old))


def _change(fact: Fact, old: Number | None, new: Number | None) -> str:
    grown = f" ({new / old - 1:+.1%})" if fact.unit == "bytes" and old and new is not None else ""
    texts = _number(fact, old), _number(fact, new)
    if texts[0] == texts[1] and None not in (old, new) and old != new:  # print what differs
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
    """Larger for the worse of two values of a fact.

    None was not measured, and another process may have; NaN is worse than any number.
    """
    if value is None:
        return -math.inf
    if math.isnan(value):
        return math.inf
    return -value if name in FACTS and FACTS[name].rule is Rule.OWN_FLOOR else value


def compile_counts(report: CompileReport) -> dict[str, Any]:
    """What compiled in a timed region, as plain numbers and reasons for `extra_info`."""
    return {
        "recompiles": report.graphs + report.cudagraph_recordings,
        "graph_breaks": len(report.graph_breaks),
        "eager_fallbacks": len(report.eager_fallbacks),
        "cudagraph_skips": report.cudagraph_skips,
        "compile_findings": "" if report.clean else report.describe(),
    }


def broken_laws(info: Mapping[str, Any]) -> list[str]:
    """What a benchmark's `extra_info` says that must never be so, whatever the baseline holds.

    Args:
        info: may hold the keys of `compile_counts`, and the facts that have a bound, with it.
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
