"""`--against REF`: pytest's hooks for judging by pairs, and nothing else. Loaded by conftest.py.

A suite says what to measure (`config.stash[PAIRED_REQUEST]`) and marks its items `paired`. Whichever of them
runs first starts the measuring; each reports one configuration.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from ...errors import XencError
from ..plugin import GATE, device_of, is_benchmark, leave_out
from ..publish import unwritten
from ..session import GateSession
from ..verdict import Judgement, Verdict
from .accepted import read_accepted
from .campaign import CampaignError
from .picture import draw_paired
from .report import paired_markdown
from .session import PairedRequest, PairedRun, UnpairableError, check_pairable, measure_paired

PAIRED_REQUEST: Final = pytest.StashKey[Callable[[str], PairedRequest]]()
"""Where a suite leaves what to measure on a device ("cpu" or "cuda")."""

PAIRED: Final = "xenc-gate-paired"
"""The name that this plugin's state is registered under."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options beside the gate's own."""
    group = parser.getgroup("xenc gate")
    group.addoption(
        "--against",
        metavar="REF",
        help="with --benchmark-compare: measure the working tree and REF side by side in the same processes",
    )
    group.addoption(
        "--accept-unpaired",
        metavar="REASON",
        help="if REF cannot run beside the working tree, judge by the stored baseline alone; REASON is shown",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options."""
    against, reason = config.option.against, config.option.accept_unpaired
    gate = config.pluginmanager.get_plugin(GATE)
    if against is None and reason is not None:
        raise pytest.UsageError("--accept-unpaired is for --against REF: without it nothing is paired.")
    if against is not None and (gate is None or not gate.session.comparing):
        raise pytest.UsageError("--against REF needs --benchmark-compare: nothing else gives a verdict.")
    if reason is not None and not reason.strip():
        raise pytest.UsageError("--accept-unpaired needs a reason that a reviewer can read.")
    if against is not None:
        config.option.benchmark_quiet = True  # a table of the head alone says nothing beside the pairs
    config.pluginmanager.register(PairedPlugin(config, against, reason), PAIRED)


class PairedPlugin:
    """The state of one run. Without --against it only leaves out what reports pairs."""

    def __init__(self, config: pytest.Config, against: str | None, reason: str | None) -> None:
        self._config, self._against, self._reason = config, against, reason
        self._runs: dict[str, PairedRun | XencError] = {}

    @property
    def gate(self) -> GateSession:
        """What the run is judged in."""
        plugin: Any = self._config.pluginmanager.get_plugin(GATE)
        session: GateSession = plugin.session
        return session

    @pytest.hookimpl(trylast=True)  # after -m and -k, lest what they leave out is tried on a device
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep either the items that report pairs or the others."""
        benchmarks = [item for item in items if is_benchmark(item)]
        paired = [item for item in benchmarks if item.get_closest_marker("paired")]
        if self._against is not None and self._reason is not None:
            self._fall_back({device_of(item) for item in paired})
        unwanted = paired if self._against is None else [item for item in benchmarks if item not in paired]
        leave_out(self._config, items, unwanted)
        self.gate.paired = self._against is not None

    def run(self, device: str) -> PairedRun:
        """What measuring on a device found; measured once.

        Raises:
            XencError: nothing was measured, and why; the same each time.
        """
        if device not in self._runs:
            try:
                self._runs[device] = self._measure(device)
            except XencError as error:
                self._runs[device] = error
            except OSError as error:
                self._runs[device] = CampaignError(f"nothing can be measured ({error}): is the disk full?")
            except Exception as error:  # whatever it is, measuring again would take as long and say the same
                self._runs[device] = CampaignError(f"nothing can be judged ({type(error).__name__}: {error})")
        found = self._runs[device]
        if isinstance(found, XencError):
            raise found
        return found

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """What was measured and not green counts, though no item of this run reports it."""
        for device, run in self._runs.items():
            for name, judgement in run.verdicts.configurations.items() if isinstance(run, PairedRun) else ():
                if not judgement.verdict.green and judgement not in self.gate.judged.values():
                    self.gate.judged[f"{device}: {name}"] = judgement

    def _measure(self, device: str) -> PairedRun:
        assert self._against is not None
        request = self._config.stash[PAIRED_REQUEST](device)
        run = measure_paired(
            request,
            self._against,
            self._config.rootpath,
            accepted=read_accepted(self.gate.directory, device),
            say=self._say,
        )
        machine = run.results[-1].get("machine", {})
        chapter = paired_markdown(
            run.verdicts,
            base=run.base_commit,
            head=run.head_commit,
            dirty=run.dirty,
            same_code=run.same_code,
            fault=request.fault,
            machine=machine,
        )
        self.gate.chapters.append(chapter)
        if self._config.option.report_dir:
            try:
                self._keep(run, request, Path(self._config.option.report_dir))
            except OSError as error:
                self.gate.failures.append(unwritten("the picture", error))
        return run

    def _keep(self, run: PairedRun, request: PairedRequest, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        commits = f"{run.head_commit[:12]} against {run.base_commit[:12]}"
        name = run.results[-1].get("machine", {}).get("device", request.device)
        picture = folder / f"against-{request.device}.png"
        raw = folder / f"against-{request.device}.json.gz"
        with gzip.open(raw, "wt", encoding="utf-8") as file:
            json.dump(list(run.results), file)
        self.gate.messages.append(f"wrote {raw}")
        if draw_paired(picture, run.results, run.verdicts, request.rules, f"{commits}, {name}"):
            self.gate.messages.append(f"wrote {picture}")

    def _fall_back(self, devices: set[str]) -> None:
        """Whether pairs can be had at all; if not, go on as if --against had not been given."""
        assert self._against is not None
        for device in sorted(devices):
            try:
                check_pairable(
                    self._config.stash[PAIRED_REQUEST](device), self._against, self._config.rootpath
                )
            except UnpairableError as error:
                self.gate.messages.append(
                    f"UNPAIRED, judged by the stored baseline alone ({error}). Accepted: {self._reason}"
                )
                self._against = None
                return
            except XencError as error:
                raise pytest.UsageError(str(error)) from error
        self.gate.messages.append("--accept-unpaired was not needed: both revisions run side by side")

    def _say(self, line: str) -> None:
        """Print a line now, between the dots."""
        terminal: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = self._config.pluginmanager.get_plugin("capturemanager")
        if terminal is None:
            return
        if capture is None:
            terminal.write_line(line)
            return
        with capture.global_and_fixture_disabled():
            terminal.write_line(line)


def not_measured(error: XencError) -> Judgement:
    """The verdict on a configuration whose measuring failed."""
    unpairable = isinstance(error, UnpairableError)
    hint = "; --accept-unpaired REASON judges by the stored baseline" if unpairable else ""
    return Judgement(verdict=Verdict.NOT_MEASURED, reason=f"{error}{hint}")
