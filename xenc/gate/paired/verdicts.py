"""Results of the measuring processes -> one judgement for each configuration. Pure: no torch, no files.

Two controls run in every process: the base against a second import of itself must be PASS, and that import
with a known share of extra device work must be REGRESSED. If a control comes out otherwise, times are not
judged; exact facts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

from ..exact import badness, changed_facts
from ..growth import Breakdown, causes_of
from ..verdict import Judgement, Verdict
from .rule import CHANNEL_NAMES, Channel, Rule, change_in_process, judge_changes

CHANNELS: Final = tuple(CHANNEL_NAMES)

CONTROLS: Final = (
    ("base against itself", "same", "base", Verdict.PASS),
    ("deliberate slowdown", "slowed", "same", Verdict.REGRESSED),
)
"""The controls: name, arm that is judged, arm that it is compared with, expected verdict."""

Result = Mapping[str, Any]
"""What one measuring process wrote."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A comparison whose outcome is known beforehand.

    Attributes:
        name: what was compared.
        configuration: the configuration it ran on.
        channel: which seconds.
        arms: the arm that was judged, and the arm that it was compared with.
        expected: the verdict that it must have.
        judgement: the verdict that it has, and its grounds.
    """

    name: str
    configuration: str
    channel: Channel
    arms: tuple[str, str]
    expected: Verdict
    judgement: Judgement

    @property
    def held(self) -> bool:
        """Whether it has the expected verdict."""
        return self.judgement.verdict is self.expected


@dataclass(frozen=True, kw_only=True)
class PairedVerdicts:
    """The verdicts of a paired run.

    Attributes:
        configurations: the judgement on each, by name.
        controls: all controls, in both channels.
        timed: the judgements of times that `configurations` combines, by name and channel.
        processes: how many processes measured.
    """

    configurations: Mapping[str, Judgement]
    controls: tuple[Control, ...]
    timed: Mapping[tuple[str, Channel], Judgement]
    processes: int

    @property
    def decided(self) -> bool:
        """Whether the controls held and every configuration has a final verdict."""
        held = all(control.held for control in self.controls)
        final = {name for name, each in self.configurations.items() if each.exact}
        return held and all(
            each.verdict is not Verdict.INCONCLUSIVE or name in final
            for (name, _), each in self.timed.items()
        )


def comparisons(configurations: int) -> int:
    """The number of judgements of a run: each configuration and the A/A control, in each channel."""
    return len(CHANNELS) * (configurations + 1)


def judge_campaign(
    results: Sequence[Result],
    rules: Mapping[str, Rule],
    accepted: Mapping[str, Mapping[str, Any]] | None = None,
) -> PairedVerdicts:
    """Judge every configuration and the controls.

    Args:
        results: one of each process, all of the same configurations.
        rules: by configuration.
        accepted: values that exact facts may grow to, by configuration.
    """
    number = comparisons(len(rules))
    timed = {
        (name, channel): _timed(results, name, channel, rule, number)
        for name, rule in rules.items()
        for channel in CHANNELS
    }
    controls = tuple(
        control
        for name, rule in rules.items()
        if _has_controls(results[0], name)
        for control in _controls(results, name, rule, number)
    )
    failed = [
        f"{control.name}: {control.judgement.verdict} ({control.judgement.reason})"
        for control in controls
        if not control.held
    ]
    if not controls:
        failed = ["no control ran"]
    judged = {}
    for name in rules:
        by_channel = {channel: timed[name, channel] for channel in CHANNELS}
        found = [result["configurations"][name] for result in results]
        judged[name] = _judge_one(by_channel, found, failed, (accepted or {}).get(name))
    return PairedVerdicts(configurations=judged, controls=controls, timed=timed, processes=len(results))


def _timed(
    results: Sequence[Result], name: str, channel: Channel, rule: Rule, number: int,
    head: str = "head", base: str = "base",
) -> Judgement:  # fmt: skip
    changes = [
        change_in_process(result["configurations"][name]["blocks"], channel, head=head, base=base)
        for result in results
    ]
    return judge_changes(changes, rule, comparisons=number, what=CHANNEL_NAMES[channel])


def _controls(results: Sequence[Result], name: str, rule: Rule, number: int) -> list[Control]:
    return [
        Control(
            name=what, configuration=name, channel=channel, arms=(head, base), expected=expected,
            judgement=_timed(results, name, channel, rule, number, head=head, base=base),
        )
        for channel in CHANNELS
        for what, head, base, expected in CONTROLS
    ]  # fmt: skip


def _judge_one(
    timed: Mapping[Channel, Judgement],
    found: Sequence[Mapping[str, Any]],
    failed: Sequence[str],
    accepted: Mapping[str, Any] | None,
) -> Judgement:
    exact = changed_facts(_worst_facts(found, "head"), _worst_facts(found, "base"), accepted)
    slow = [each for each in timed.values() if each.verdict is Verdict.REGRESSED and not failed]
    reasons = "; ".join(each.reason for each in timed.values())
    known: dict[str, Any] = {"changed": (*exact.better, *exact.notes), "findings": _findings(found)}
    if exact.worse or slow:
        return Judgement(
            verdict=Verdict.REGRESSED,
            reason="; ".join([*exact.worse, reasons]),
            ratio=timed["device_s"].ratio,
            uncertainty=timed["device_s"].uncertainty,
            exact=exact.worse,
            causes=_causes(found),
            **known,
        )
    if failed:
        return Judgement(
            verdict=Verdict.NOT_MEASURED, reason="the controls failed: " + "; ".join(failed), **known
        )
    if exact.unmeasured:
        reason = "measured on the base, but not on the head: " + ", ".join(exact.unmeasured)
        return Judgement(verdict=Verdict.NOT_MEASURED, reason=reason, **known)
    return Judgement(
        verdict=_combined([each.verdict for each in timed.values()]),
        reason=reasons,
        ratio=timed["device_s"].ratio,
        uncertainty=timed["device_s"].uncertainty,
        **known,
    )


def _combined(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of both channels, of which none is REGRESSED: INCONCLUSIVE before IMPROVED before PASS."""
    for verdict in (Verdict.INCONCLUSIVE, Verdict.IMPROVED):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS


def _worst_facts(found: Sequence[Mapping[str, Any]], arm: str) -> dict[str, Any]:
    """The worst value of each fact over all processes, so that one late recompile is not averaged away."""
    worst: dict[str, Any] = {}
    for facts in (process["facts"][arm] for process in found):
        for name, value in facts.items():
            worst[name] = max(worst.get(name), value, key=partial(badness, name))
    return worst


def _findings(found: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    said = (process["findings"]["head"] for process in found)
    return tuple(dict.fromkeys(finding for finding in said if finding))


def _causes(found: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What became slower, from the processes that looked into it."""
    return tuple(
        cause
        for process in found
        for cause in causes_of(_breakdown(process, "head"), _breakdown(process, "base"))
    )


def _breakdown(process: Mapping[str, Any], arm: str) -> Breakdown:
    parts = {part.name: process.get(part.name, {}).get(arm, {}) for part in fields(Breakdown)}
    return Breakdown(**parts)


def _has_controls(result: Result, name: str) -> bool:
    return any(block["arm"] == "slowed" for block in result["configurations"][name]["blocks"])
