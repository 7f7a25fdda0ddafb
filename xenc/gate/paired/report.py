"""The verdicts of a paired run -> Markdown: headline, what was compared, verdicts, controls, machine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report import bold, facts_line, label, quoted, some, verdict_chapter
from ..verdict import Judgement, Verdict
from .rule import CHANNEL_NAMES

if TYPE_CHECKING:
    from .revision import Revisions
    from .verdicts import PairedVerdicts


def paired_chapter(
    verdicts: PairedVerdicts,
    revisions: Revisions,
    machine: Mapping[str, Any],
    *,
    faults: Sequence[str] = (),
    left_out: int = 0,
) -> str:
    """The report of a paired run, for the terminal, a job's summary and a file.

    Args:
        verdicts: of the run.
        revisions: what was compared.
        machine: facts of the machine, by name; may be empty.
        faults: what was done to the head on purpose.
        left_out: how many tests should have been measured and were not.
    """
    head, base = revisions.head_commit[:12], revisions.base_commit[:12]
    changed = f", with uncommitted changes in {some(revisions.dirty)}" if revisions.dirty else ""
    compared = f"Head {head}{changed}, against base {base}; {verdicts.processes} processes."
    if faults:
        compared += f" The head contains a deliberate fault: {', '.join(faults)}."
    elif revisions.same_code:
        compared += " **Both are the same code**: the result shows the noise of the machine, not a change."
    times = {name: _times(verdicts, name) for name in verdicts.configurations}
    parts = [
        f"**{headline(verdicts, left_out)}**",
        compared,
        verdict_chapter(verdicts.configurations, times),
        _controls(verdicts),
        f"The machine: {quoted(facts_line(machine))}" if machine else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def headline(verdicts: PairedVerdicts, left_out: int = 0) -> str:
    """The result of the whole run in one line: green or not, and why."""
    judged = verdicts.configurations
    slower = [name for name in judged if judged[name].verdict is Verdict.REGRESSED]
    bad = slower + [name for name in judged if not judged[name].verdict.green and name not in slower]
    said = [_said(verdicts, name) for name in bad]
    if not judged:
        return "NOT GREEN: nothing was measured"
    if not controls_held(verdicts):
        why = "the controls failed" if verdicts.controls else "no control ran"
        return some([f"NOT GREEN: {why}, so times are not judged", *said[: len(slower)]], "; ")
    if bad:
        return "NOT GREEN: " + some(said, "; ")
    if left_out:
        tests = "1 test was" if left_out == 1 else f"{left_out} tests were"
        return f"NOT GREEN: {tests} left out; what was measured is green"
    counted = Counter(judgement.verdict for judgement in judged.values())
    better = [_said(verdicts, name) for name in judged if judged[name].verdict is Verdict.IMPROVED]
    return "; ".join(["GREEN: " + ", ".join(f"{n} {verdict}" for verdict, n in counted.items()), *better])


def controls_held(verdicts: PairedVerdicts) -> bool:
    """Whether there were controls and all held; otherwise times are not judged."""
    return bool(verdicts.controls) and all(control.held for control in verdicts.controls)


def telling(verdicts: PairedVerdicts, name: str) -> str:
    """The change that a configuration's verdict comes from, and its channel; "" if it comes from no time."""
    verdict = verdicts.configurations[name].verdict
    found = [(each, verdicts.timed.get((name, channel))) for channel, each in CHANNEL_NAMES.items()]
    same = [(each, timed) for each, timed in found if timed and timed.verdict is verdict and timed.ratio]
    if not same or not controls_held(verdicts):
        return ""
    channel, furthest = max(same, key=lambda pair: abs(math.log(pair[1].ratio or 1)))
    return f"{change(furthest)} {channel}"


def change(judgement: Judgement | None) -> str:
    """The measured change with its bounds, such as "+0.3% ± 0.9%"; a dash if there is none."""
    if judgement is None or judgement.ratio is None:
        return "-"
    bounds = "" if judgement.uncertainty is None else f" ± {judgement.uncertainty:.1%}"
    return f"{judgement.ratio - 1:+.1%}{bounds}"


def _said(verdicts: PairedVerdicts, name: str) -> str:
    """The part of the headline about one configuration."""
    judgement = verdicts.configurations[name]
    parts = [f"{label(name)} {judgement.verdict}", telling(verdicts, name), *judgement.exact]
    return " ".join(", ".join(filter(None, parts)).split())


def _times(verdicts: PairedVerdicts, name: str) -> dict[str, str]:
    """The cells of a configuration's times. A change that decides the verdict is bold."""
    timed = {channel: verdicts.timed.get((name, channel)) for channel in CHANNEL_NAMES}
    held, cells, seen = controls_held(verdicts), {}, []
    for channel, each in timed.items():
        plain = each is None or each.verdict is Verdict.PASS or not held
        cells[CHANNEL_NAMES[channel]] = bold(change(each), unless=plain)
        seen.append("-" if each is None or each.detectable is None else f"{each.detectable:.1%}")
    return {**cells, "detectable slowdown (wall, device)": ", ".join(seen)}


def _controls(verdicts: PairedVerdicts) -> str:
    if not verdicts.controls:
        return "**No control ran**: times are not judged."
    said: dict[str, list[str]] = {}
    for control in verdicts.controls:
        found = f"{CHANNEL_NAMES[control.channel]} {control.judgement.verdict} {change(control.judgement)}"
        outcomes = said.setdefault(f"{control.name} (expected {control.expected})", [])
        outcomes.append(bold(found, unless=control.held))
    lines = "; ".join(f"{wanted}: {', '.join(found)}" for wanted, found in said.items())
    return ("Controls held: " if controls_held(verdicts) else "**Controls FAILED**: ") + lines + "."
