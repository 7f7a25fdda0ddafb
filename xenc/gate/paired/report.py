"""The verdicts of a paired run -> Markdown: a headline, the table, the controls, notes and the machine."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..report import markdown_table
from ..verdict import Judgement, Verdict
from .rule import CHANNEL_NAMES, Channel

if TYPE_CHECKING:
    from .revision import Revisions
    from .verdicts import Control, PairedVerdicts

_NAMED: Final = 3
"""How many tests, or files, one line names at most."""

_WORST_FIRST: Final = (Verdict.REGRESSED, Verdict.NOT_MEASURED, Verdict.INCONCLUSIVE)

_FACTS: Final[Mapping[str, str]] = {
    "load_before": "load before",
    "cpu_seconds": "CPU seconds",
    "sm_clocks_mhz": "SM clocks in MHz",
    "at_the_power_cap": "at the power cap in",
    "throttled_by": "throttled by",
    "other_processes": "other processes on the device",
}
"""Labels of facts of the machine whose keys are not words."""


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """The report of a paired run.

    Attributes:
        body: Markdown.
        machine: facts of the machine in one line; may be empty.
    """

    body: str
    machine: str

    @property
    def markdown(self) -> str:
        """For a file and a job's summary: the machine is folded."""
        if not self.machine:
            return self.body
        machine = _quoted(self.machine)
        return f"{self.body}\n<details><summary>The machine</summary>\n\n{machine}\n\n</details>\n"

    @property
    def text(self) -> str:
        """For the terminal."""
        return f"{self.body}\nThe machine: {self.machine}\n" if self.machine else self.body


def paired_chapter(
    verdicts: PairedVerdicts,
    revisions: Revisions,
    machine: Mapping[str, Any],
    *,
    faults: Sequence[str] = (),
    left_out: int = 0,
) -> Chapter:
    """The report of a paired run, for the terminal, a job's summary and a file.

    Args:
        verdicts: of the run.
        revisions: what was compared.
        machine: facts of the machine, by name; may be empty.
        faults: what was done to the head on purpose.
        left_out: how many tests should have been measured and were not.
    """
    head, base = revisions.head_commit[:12], revisions.base_commit[:12]
    changed = f", with uncommitted changes in {_some(revisions.dirty)}" if revisions.dirty else ""
    compared = f"Head {head}{changed}, against base {base}; {verdicts.processes} processes."
    if faults:
        compared += f" The head contains a deliberate fault: {', '.join(faults)}."
    elif revisions.same_code:
        compared += " **Both are the same code**: the result shows the noise of the machine, not a change."
    table = markdown_table(
        [_row(verdicts, name) for name in verdicts.configurations] or [{"verdict": "none"}]
    )
    parts = [f"**{headline(verdicts, left_out)}**", compared, table, _controls(verdicts), _notes(verdicts)]
    facts = ", ".join(f"{_FACTS.get(name, name)} {_fact(value)}" for name, value in machine.items())
    return Chapter(body="\n\n".join(filter(None, parts)) + "\n", machine=facts)


def headline(verdicts: PairedVerdicts, left_out: int = 0) -> str:
    """The result of the whole run in one line: green or not, and why."""
    judged = verdicts.configurations
    counted = Counter(judgement.verdict for judgement in judged.values())
    bad = [name for verdict in _WORST_FIRST for name in judged if judged[name].verdict is verdict]
    bad += [name for name in judged if not judged[name].verdict.green and name not in bad]
    if not judged:
        return "NOT GREEN: nothing was measured"
    if not controls_held(verdicts):
        why = "the controls failed" if verdicts.controls else "no control ran"
        bad = [name for name in bad if judged[name].verdict is Verdict.REGRESSED]
        return "; ".join([f"NOT GREEN: {why}, so times are not judged", *(_said(verdicts, n) for n in bad)])
    if bad:
        more = [f"{len(bad) - _NAMED} more"] if len(bad) > _NAMED else []
        return "NOT GREEN: " + "; ".join([*(_said(verdicts, name) for name in bad[:_NAMED]), *more])
    if left_out:
        tests = "1 test was" if left_out == 1 else f"{left_out} tests were"
        return f"NOT GREEN: {tests} left out; what was measured is green"
    better = [_said(verdicts, name) for name in judged if judged[name].verdict is Verdict.IMPROVED]
    return "; ".join(["GREEN: " + ", ".join(f"{n} {verdict}" for verdict, n in counted.items()), *better])


def label(name: str) -> str:
    """What reports call a test: its node id without the file."""
    return name.partition("::")[2] or name


def controls_held(verdicts: PairedVerdicts) -> bool:
    """Whether there were controls and all held; otherwise times are not judged."""
    return bool(verdicts.controls) and all(control.held for control in verdicts.controls)


def telling(verdicts: PairedVerdicts, name: str) -> tuple[Channel, Judgement] | None:
    """The channel and judgement that a configuration's verdict comes from; None if from no time."""
    if not controls_held(verdicts):
        return None
    verdict = verdicts.configurations[name].verdict
    found = {channel: verdicts.timed.get((name, channel)) for channel in CHANNEL_NAMES}
    same = [(channel, each) for channel, each in found.items() if each and each.verdict is verdict]
    return max(same, key=lambda pair: abs(math.log(pair[1].ratio or 1)), default=None)


def exact_changes(verdicts: PairedVerdicts, name: str) -> list[str]:
    """The exact facts that changed, one line each, old -> new: the worse, then the better."""
    judgement = verdicts.configurations[name]
    return [*judgement.exact, *judgement.changed]


def change(judgement: Judgement | None) -> str:
    """The measured change with its bounds, such as "+0.3% ± 0.9%"; a dash if there is none."""
    if judgement is None or judgement.ratio is None:
        return "-"
    bounds = "" if judgement.uncertainty is None else f" ± {judgement.uncertainty:.1%}"
    return f"{judgement.ratio - 1:+.1%}{bounds}"


def _said(verdicts: PairedVerdicts, name: str) -> str:
    """The part of the headline about one configuration."""
    judgement, told = verdicts.configurations[name], telling(verdicts, name)
    parts = [f"{label(name)} {judgement.verdict}"]
    if told and told[1].ratio is not None:
        channel = CHANNEL_NAMES[told[0]]
        if judgement.verdict is Verdict.INCONCLUSIVE:
            parts.append(f"{_range(told[1])} ({channel})")
        else:
            direction = "slower" if told[1].ratio > 1 else "faster"
            parts.append(f"{abs(told[1].ratio - 1):.1%} {direction} ({channel})")
    return _line(", ".join([*parts, *judgement.exact]))


def _row(verdicts: PairedVerdicts, name: str) -> dict[str, str]:
    judgement = verdicts.configurations[name]
    timed = {channel: verdicts.timed.get((name, channel)) for channel in CHANNEL_NAMES}
    return {
        "verdict": str(judgement.verdict) if judgement.verdict.green else f"**{judgement.verdict}**",
        "test": label(name),
        **{CHANNEL_NAMES[channel]: _cell(each, verdicts) for channel, each in timed.items()},
        "detectable slowdown (wall, device)": ", ".join(map(_seen, timed.values())),
        "changes of exact facts": _line("; ".join(exact_changes(verdicts, name))) or "none",
    }


def _seen(timed: Judgement | None) -> str:
    return "-" if timed is None or timed.detectable is None else f"{timed.detectable:.1%}"


def _cell(timed: Judgement | None, verdicts: PairedVerdicts) -> str:
    """The change, in bold if it decides the verdict."""
    plain = timed is None or timed.verdict is Verdict.PASS or not controls_held(verdicts)
    return change(timed) if plain else f"**{change(timed)}**"


def _controls(verdicts: PairedVerdicts) -> str:
    if not verdicts.controls:
        return "**No control ran**: times are not judged."
    said: dict[str, list[str]] = {}
    for control in verdicts.controls:
        said.setdefault(f"{control.name} (expected {control.expected})", []).append(_outcome(control))
    lines = "; ".join(f"{wanted}: {', '.join(found)}" for wanted, found in said.items())
    return ("Controls held: " if controls_held(verdicts) else "**Controls FAILED**: ") + lines + "."


def _outcome(control: Control) -> str:
    judgement = control.judgement
    found = f"{CHANNEL_NAMES[control.channel]} {judgement.verdict} {change(judgement)}".strip()
    return found if control.held else f"**{found}**"


def _notes(verdicts: PairedVerdicts) -> str:
    """Notes on every configuration that is not PASS: what became slower, what is undecided, what to do."""
    judged = verdicts.configurations
    lines = [line for name in judged for line in _notes_on(verdicts, name)]
    if any(judgement.verdict is Verdict.IMPROVED for judgement in judged.values()):
        lines.append("- To keep the improvement, record a new baseline (`--gate-record`) and commit it.")
    return "\n".join(lines)


def _notes_on(verdicts: PairedVerdicts, name: str) -> list[str]:
    judgement = verdicts.configurations[name]
    if judgement.verdict is Verdict.PASS:
        return []
    said = [*judgement.causes, *judgement.findings, *judgement.notes]
    undecided = {c: verdicts.timed.get((name, c)) for c in CHANNEL_NAMES}
    if judgement.verdict is Verdict.INCONCLUSIVE:
        said = [_undecided(c, t) for c, t in undecided.items() if t and t.verdict is judgement.verdict] + said
    elif not (judgement.verdict in (Verdict.REGRESSED, Verdict.IMPROVED) or not controls_held(verdicts)):
        said = [judgement.reason, *said]
    return [f"- {label(name)}: {_quoted(_line(note))}" for note in said]


def _undecided(channel: Channel, timed: Judgement) -> str:
    if timed.ratio is None:
        return timed.reason
    return f"{CHANNEL_NAMES[channel]} {_range(timed)}: too noisy to decide, repeat on a quieter machine"


def _range(timed: Judgement) -> str:
    low, high = ((timed.ratio or 1) * math.exp(sign * (timed.uncertainty or 0)) - 1 for sign in (-1, 1))
    return f"between {low:+.1%} and {high:+.1%}"


def _quoted(text: str) -> str:
    """As inline code if it contains Markdown's special characters, as names of C++ kernels do."""
    if not re.search(r"[<*_`\[]", text):
        return text
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_fact(each)}" for name, each in value.items()) + ")"
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_fact, value)) if len(value) == 2 else ", ".join(map(_fact, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else _line(str(value))


def _some(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*names[:_NAMED], *more])


def _line(text: str) -> str:
    return " ".join(text.split())
