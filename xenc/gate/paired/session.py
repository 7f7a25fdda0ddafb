"""REF -> verdicts: both revisions copied, measured in fresh processes until everything is decided, judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import XencError
from .campaign import LOCK, Campaign, CampaignError
from .revision import Revisions, two_revisions
from .rule import Rule
from .verdicts import PairedVerdicts, Result, comparisons, judge_campaign


class UnpairableError(XencError):
    """The base revision cannot be measured beside the head."""


@dataclass(frozen=True, kw_only=True)
class PairedRequest:
    """What to measure on both revisions.

    Attributes:
        command: starts a measuring process; the paths of request and result are added.
        device: torch's device type.
        rules: how each configuration is judged, by name; the looks must be alike.
        seeded: the slowdown of the control that is slowed on purpose, as a fraction.
        timeout_s: after which a measuring process counts as hung.
        fault: what to break in the head on purpose; None for nothing.
    """

    command: Sequence[str]
    device: str
    rules: Mapping[str, Rule]
    seeded: float
    timeout_s: float
    fault: str | None = None

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many processes to judge."""
        (looks,) = {rule.looks for rule in self.rules.values()}
        return looks

    def check(self) -> None:
        """Refuse what could never become REGRESSED.

        Raises:
            UnreachableError: with the reason.
        """
        for rule in self.rules.values():
            rule.check(comparisons(len(self.rules)))


@dataclass(frozen=True, kw_only=True)
class PairedRun:
    """What a run found.

    Attributes:
        base_commit: 40 hex digits.
        head_commit: what is checked out.
        dirty: files of the head that differ from it.
        same_code: whether base and head are the same, so that only the machine was compared with itself.
        results: one of each process.
        verdicts: what they say.
    """

    base_commit: str
    head_commit: str
    dirty: tuple[str, ...]
    same_code: bool
    results: Sequence[Result]
    verdicts: PairedVerdicts


def measure_paired(
    request: PairedRequest,
    ref: str,
    repository: Path,
    *,
    accepted: Mapping[str, Mapping[str, Any]] | None = None,
    say: Callable[[str], object] = lambda _: None,
    lock: Path | None = LOCK,
) -> PairedRun:
    """Measure and judge.

    Args:
        request: what to measure.
        ref: the base revision.
        repository: its working tree is the head.
        accepted: what exact counts may grow to, by configuration.
        say: told of each process that has measured.
        lock: see `Campaign`.

    Raises:
        UnreachableError: no slowdown could ever be called REGRESSED.
        RevisionError: no such revision.
        UnpairableError: the base cannot run beside the head.
        CampaignError: a measuring process failed, or another gate is measuring.
    """
    request.check()
    with (
        two_revisions(ref, repository) as revisions,
        Campaign(request.command, timeout_s=request.timeout_s, lock=lock) as campaign,
    ):
        results, verdicts = _until_decided(campaign, request, revisions, accepted, say)
        return PairedRun(
            base_commit=revisions.base_commit,
            head_commit=revisions.head_commit,
            dirty=revisions.dirty,
            same_code=revisions.same_code,
            results=results,
            verdicts=verdicts,
        )


def _until_decided(
    campaign: Campaign,
    request: PairedRequest,
    revisions: Revisions,
    accepted: Mapping[str, Mapping[str, Any]] | None,
    say: Callable[[str], object],
) -> tuple[list[Result], PairedVerdicts]:
    """As many processes as it takes, up to the last look."""
    results: list[Result] = []
    for look in request.looks:
        while len(results) < look:
            started = time.monotonic()
            folders = revisions.base, revisions.head
            results.append(measure_process(campaign, request, *folders, number=len(results)))
            say(f"measuring process {len(results)} of {look}: {time.monotonic() - started:.0f} s")
        verdicts = judge_campaign(results, request.rules, accepted)
        if verdicts.decided:
            break
        say(f"undecided after {look} processes")
    return results, verdicts


def check_pairable(request: PairedRequest, ref: str, repository: Path, *, lock: Path | None = LOCK) -> None:
    """Bring both revisions up side by side and time nothing.

    Raises:
        UnpairableError: that fails.
        RevisionError: no such revision.
        CampaignError: the process failed otherwise.
    """
    with (
        two_revisions(ref, repository) as revisions,
        Campaign(request.command, timeout_s=request.timeout_s, lock=lock) as campaign,
    ):
        measure_process(campaign, request, revisions.base, revisions.head, number=1, only_warm_up=True)


def measure_process(
    campaign: Campaign, request: PairedRequest, base: Path, head: Path, *,
    number: int, only_warm_up: bool = False,
) -> Result:  # fmt: skip
    """One measuring process.

    Args:
        campaign: runs it.
        request: what to measure.
        base: the folder of the base's package.
        head: the folder of the head's.
        number: of this process; the first, 0, also looks where the time goes.
        only_warm_up: bring both revisions up and time nothing.

    Raises:
        UnpairableError: the base cannot run beside the head.
        CampaignError: the process failed.
    """
    result = campaign.run_process(
        {
            "device": request.device,
            "base": str(base),
            "head": str(head),
            "configurations": list(request.rules),
            "only_warm_up": only_warm_up,
            "slowed": request.seeded,
            "fault": request.fault,
            "number": number,
            "explain": number == 0,
        }
    )
    if "unmeasurable" in result:
        raise UnpairableError(str(result["unmeasurable"]))
    missing = set(request.rules) - set(result.get("configurations", {}))
    if missing and not only_warm_up:
        raise CampaignError(f"a measuring process left out {', '.join(sorted(missing))}.")
    return result
