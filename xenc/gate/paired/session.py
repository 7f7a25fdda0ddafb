"""One paired run: copies both revisions, measures them in fresh processes, and judges them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CampaignError, UnpairableError
from .campaign import LOCK, Campaign
from .revision import Revisions, two_revisions
from .rule import Rule
from .verdicts import PairedVerdicts, Result, comparisons, judge_campaign


@dataclass(frozen=True, kw_only=True)
class PairedRequest:
    """What to measure on both revisions.

    Attributes:
        command: starts a measuring process; the paths of request and result are appended.
        device: torch's device type, "cpu" or "cuda".
        package: the name of the package of which there are two revisions.
        rules: the rule of each test, by its node id; all have the same looks.
        timeout_s: seconds after which a measuring process is killed.
        slower: by how much the head is made slower on purpose, as a fraction.
        seeded: the same of the slowed control; None for the first test's must_see.
    """

    command: Sequence[str]
    device: str
    package: str
    rules: Mapping[str, Rule]
    timeout_s: float
    slower: float = 0.0
    seeded: float | None = None

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of processes after which the run is judged."""
        (looks,) = {rule.looks for rule in self.rules.values()}
        return looks

    @property
    def slowed(self) -> float:
        """By how much the slowed control is slower, as a fraction."""
        return next(iter(self.rules.values())).must_see if self.seeded is None else self.seeded

    def check(self) -> None:
        """Check that every rule can detect its must_see.

        Raises:
            UnreachableError: one cannot.
        """
        for rule in self.rules.values():
            rule.check(comparisons(len(self.rules)))


@dataclass(frozen=True, kw_only=True)
class PairedRun:
    """The results of a paired run.

    Attributes:
        revisions: what was compared; its folders are gone.
        results: one of each process.
        verdicts: on these results.
    """

    revisions: Revisions
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
    """Measure base and head, and judge.

    Args:
        request: what to measure.
        ref: the base revision.
        repository: its working tree is the head.
        accepted: values that exact facts may grow to, by test.
        say: called with a line of progress after each process.
        lock: see `Campaign`.

    Raises:
        UnreachableError: a rule cannot detect its must_see.
        RevisionError: there is no such revision, or it cannot be copied.
        UnpairableError: the base cannot run beside the head.
        CampaignError: a measuring process failed, or another gate is measuring.
    """
    request.check()
    with (
        two_revisions(ref, repository, request.package) as revisions,
        Campaign(request.command, timeout_s=request.timeout_s, lock=lock) as campaign,
    ):
        results, verdicts = _until_decided(campaign, request, revisions, accepted, say)
        return PairedRun(revisions=revisions, results=results, verdicts=verdicts)


def _until_decided(
    campaign: Campaign,
    request: PairedRequest,
    revisions: Revisions,
    accepted: Mapping[str, Mapping[str, Any]] | None,
    say: Callable[[str], object],
) -> tuple[list[Result], PairedVerdicts]:
    """Measure up to each look, and stop at the first that decides every comparison."""
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
    """Import and warm up both revisions in one process, without timing.

    Raises:
        UnpairableError: the base cannot run beside the head.
        RevisionError: there is no such revision, or it cannot be copied.
        CampaignError: the process failed otherwise.
    """
    with (
        two_revisions(ref, repository, request.package) as revisions,
        Campaign(request.command, timeout_s=request.timeout_s, lock=lock) as campaign,
    ):
        measure_process(campaign, request, revisions.base, revisions.head, number=1, only_warm_up=True)


def measure_process(
    campaign: Campaign, request: PairedRequest, base: Path, head: Path, *,
    number: int, only_warm_up: bool = False,
) -> Result:  # fmt: skip
    """Run one measuring process.

    Args:
        campaign: runs it.
        request: what to measure.
        base: the folder that contains the base's package.
        head: the folder that contains the head's package.
        number: of this process; process 0 also measures the time of stages and kernels.
        only_warm_up: import and warm up, without timing.

    Raises:
        UnpairableError: the base cannot run beside the head.
        CampaignError: the process failed.
    """
    asked = process_request(request, base, head, number=number)
    result = campaign.run_process({**asked, "only_warm_up": only_warm_up})
    check_result(result, () if only_warm_up else request.rules)
    return result


def process_request(request: PairedRequest, base: Path, head: Path, *, number: int) -> dict[str, Any]:
    """What a measuring process reads; see `measure_process`."""
    return {
        "device": request.device,
        "package": request.package,
        "base": str(base),
        "head": str(head),
        "names": list(request.rules),
        "only_warm_up": False,
        "slowed": request.slowed,
        "head_slower": request.slower,
        "number": number,
        "explain": number == 0,
    }


def check_result(result: Result, names: Iterable[str]) -> None:
    """Check that a process measured the tests of these names.

    Raises:
        UnpairableError: the base cannot run beside the head.
        CampaignError: the process left some out.
    """
    if "unmeasurable" in result:
        raise UnpairableError(str(result["unmeasurable"]))
    missing = set(names) - set(result.get("configurations", {}))
    if missing:
        raise CampaignError(f"a measuring process left out {', '.join(sorted(missing))}.")
