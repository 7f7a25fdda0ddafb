"""The pytest hooks of `--against REF`. A conftest.py loads them.

A suite states what to measure (`config.stash[PAIRED_REQUEST]`) and marks its tests `paired`. The first of
them to run measures everything; each reports one configuration.
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
"""Where a suite stores a function from a device ("cpu" or "cuda") to what is measured on it."""

PAIRED: Final = "xenc-gate-paired"
"""The name under which `PairedPlugin` is registered."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `--against`."""
    group = parser.getgroup("xenc gate")
    group.addoption(
        "--against",
        metavar="REF",
        help="with --benchmark-compare: measure the working tree and REF side by side in the same processes",
    )
    group.addoption(
        "--accept-unpaired",
        metavar="REASON",
        help="if REF cannot run beside the working tree, judge by the stored baseline; REASON is shown",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options."""
    against, reason = config.option.against, config.option.accept_unpaired
    gate = config.pluginmanager.get_plugin(GATE)
    if against is None and reason is not None:
        raise pytest.UsageError("--accept-unpaired needs --against REF.")
    if against is not None and (gate is None or not gate.session.comparing):
        raise pytest.UsageError("--against REF needs --benchmark-compare.")
    if reason is not None and not reason.strip():
        raise pytest.UsageError("--accept-unpaired needs a reason, for the reviewer.")
    if against is not None:
        config.option.benchmark_quiet = True  # pytest-benchmark's table would show the head alone
    config.pluginmanager.register(PairedPlugin(config, against, reason), PAIRED)


class PairedPlugin:
    """The state of one run. Without --against it only deselects the tests marked `paired`."""

    def __init__(self, config: pytest.Config, against: str | None, reason: str | None) -> None:
        self._config, self._against, self._reason = config, against, reason
        self._runs: dict[str, PairedRun | XencError] = {}

    @property
    def gate(self) -> GateSession:
        """The gate's state of this run."""
        plugin: Any = self._config.pluginmanager.get_plugin(GATE)
        session: GateSession = plugin.session
        return session

    @pytest.hookimpl(trylast=True)  # after -m and -k: no device is tried whose tests they deselect
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the benchmarks marked `paired` with --against, and the others without it."""
        benchmarks = [item for item in items if is_benchmark(item)]
        paired = [item for item in benchmarks if item.get_closest_marker("paired")]
        if self._against is not None and self._reason is not None:
            self._fall_back({device_of(item) for item in paired})
        unwanted = paired if self._against is None else [item for item in benchmarks if item not in paired]
        leave_out(self._config, items, unwanted)
        self.gate.paired = self._against is not None

    def run(self, device: str) -> PairedRun:
        """The results of a device. The first call measures; later calls return or raise the same.

        Raises:
            XencError: the measurement failed.
        """
        if device not in self._runs:
            try:
                self._runs[device] = self._measure(device)
            except XencError as error:
                self._runs[device] = error
            except OSError as error:
                self._runs[device] = CampaignError(f"nothing can be measured ({error}): is the disk full?")
            except Exception as error:  # kept too: measuring again would take as long and fail
                self._runs[device] = CampaignError(f"judging failed ({type(error).__name__}: {error})")
        found = self._runs[device]
        if isinstance(found, XencError):
            raise found
        return found

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Count the verdicts that are not green of configurations whose tests were deselected."""
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
        """Try both revisions; if REF cannot run, go on as if --against had not been given."""
        assert self._against is not None
        for device in sorted(devices):
            try:
                check_pairable(
                    self._config.stash[PAIRED_REQUEST](device), self._against, self._config.rootpath
                )
            except UnpairableError as error:
                self.gate.messages.append(
                    f"NOT PAIRED: judged by the stored baseline alone, because {error}. "
                    f"Accepted: {self._reason}"
                )
                self._against = None
                return
            except XencError as error:
                raise pytest.UsageError(str(error)) from error
        self.gate.messages.append("--accept-unpaired was not needed: both revisions run side by side")

    def _say(self, line: str) -> None:
        """Print a line at once, while pytest captures output."""
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
    """The verdict on a configuration whose measurement failed."""
    unpairable = isinstance(error, UnpairableError)
    hint = "; use --accept-unpaired REASON to judge by the stored baseline instead" if unpairable else ""
    return Judgement(verdict=Verdict.NOT_MEASURED, reason=f"{error}{hint}")
