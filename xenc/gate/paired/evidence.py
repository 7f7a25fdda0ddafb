"""What `--against REF` says of each test: measured once for each device, when the first test asks."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CampaignError, GateError, UnpairableError
from ..verdict import Judgement, Verdict
from ..whole_file import unwritten
from .accepted import read_accepted
from .picture import draw_paired
from .report import paired_chapter
from .session import PairedRequest, PairedRun, check_pairable, measure_paired


@dataclass(kw_only=True)
class Paired:
    """Another revision as evidence.

    Attributes:
        ref: that revision, the base.
        repository: its working tree is the head.
        baselines: the folder with the list of accepted facts.
        request: makes what is measured on a device from the node ids of its tests.
        say: prints a line at once.
        report: the folder of the report; None for none.
        faults: what is done to the head on purpose, in words.
        tests: node ids to be measured, by device.
        left_out: how many others should have been.
        chapters: Markdown on what was measured, of each device.
        messages, failures: those of the run, to which is added what was written, and what could not be.
    """

    ref: str
    repository: Path
    baselines: Path
    request: Callable[[str, Sequence[str]], PairedRequest]
    say: Callable[[str], None]
    messages: list[str]
    failures: list[str]
    report: Path | None = None
    faults: list[str] = field(default_factory=list)
    tests: dict[str, list[str]] = field(default_factory=dict)
    left_out: int = 0
    chapters: list[str] = field(default_factory=list)
    _runs: dict[str, PairedRun | GateError] = field(default_factory=dict)

    def judge(self, device: str, name: str) -> tuple[Judgement, Mapping[str, Sequence[float]]]:
        """The judgement on a test, and the wall-clock seconds of its blocks by arm."""
        run = self._run(device)
        if isinstance(run, GateError):
            hint = "; use --accept-unpaired REASON to judge by the stored baseline instead"
            why = f"{run}{hint if isinstance(run, UnpairableError) else ''}"
            return Judgement(verdict=Verdict.NOT_MEASURED, reason=why), {}
        blocks = [
            block for result in run.results for block in result["configurations"][name]["blocks"]
        ]  # fmt: skip
        arms = {block["arm"] for block in blocks}
        seconds = {arm: [block["wall_s"] for block in blocks if block["arm"] == arm] for arm in arms}
        return run.verdicts.configurations[name], seconds

    def try_out(self) -> None:
        """Import and warm up both revisions on each device.

        Raises:
            UnpairableError: the base cannot run beside the head.
            GateError: anything else went wrong.
        """
        for device, names in sorted(self.tests.items()):
            check_pairable(self.request(device, names), self.ref, self.repository)

    def _run(self, device: str) -> PairedRun | GateError:
        """The results of a device, or why there are none. Only the first call measures."""
        if device not in self._runs:
            try:
                self._runs[device] = self._measure(device)
            except GateError as error:
                self._runs[device] = error
            except OSError as error:
                self._runs[device] = CampaignError(f"nothing can be measured ({error}): is the disk full?")
            except Exception as error:  # kept too: measuring again would take as long and fail
                self._runs[device] = CampaignError(f"judging failed ({type(error).__name__}: {error})")
        return self._runs[device]

    def _measure(self, device: str) -> PairedRun:
        request = self.request(device, self.tests[device])
        accepted = read_accepted(self.baselines, device)
        run = measure_paired(request, self.ref, self.repository, accepted=accepted, say=self.say)
        machine = run.results[-1].get("machine", {})
        slower = [f"{request.slower:.0%} slower"] if request.slower else []
        self.chapters.append(
            paired_chapter(
                run.verdicts, run.revisions, machine, faults=[*slower, *self.faults], left_out=self.left_out
            )
        )
        if self.report is not None:
            try:
                self._keep(run, request, self.report)
            except OSError as error:
                self.failures.append(unwritten("the picture", error))
        return run

    def _keep(self, run: PairedRun, request: PairedRequest, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        commits = f"{run.revisions.head_commit[:12]} against {run.revisions.base_commit[:12]}"
        name = run.results[-1].get("machine", {}).get("device", request.device)
        picture = folder / f"against-{request.device}.png"
        raw = folder / f"against-{request.device}.json.gz"
        with gzip.open(raw, "wt", encoding="utf-8") as file:
            json.dump(list(run.results), file)
        self.messages.append(f"wrote {raw}")
        if draw_paired(picture, run.results, run.verdicts, request.rules, f"{commits}, {name}"):
            self.messages.append(f"wrote {picture}")
