"""The gate's pytest hooks."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .errors import BaselineError, GateError, SubjectError, UnpairableError
from .exact import broken_laws
from .fixture import GATE, Gate, gate, measures_at_once, package_named
from .marks import MARKERS, device_of, is_benchmark, leave_out, rule_of, uses_gate
from .measuring.process import MeasuringProcess, command_of, ignore_unused
from .measuring.replayed_clock import ReplayedClock
from .measuring.rounds import synchronised_seconds
from .options import Options, add_options, options_of
from .paired.evidence import Paired
from .paired.session import PairedRequest
from .publish import publish, say, show
from .record import Record
from .session import GateSession
from .stored.checkout import clean_commit, commit_of
from .stored.evidence import Stored
from .unmeasured import Unmeasured
from .verdict import Judgement, Verdict

__all__ = ["gate"]

COMMAND = pytest.StashKey[Sequence[str]]()
"""Where a suite may store what starts a measuring process, in place of the pytest that is running."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the gate's options to pytest-benchmark's."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Check the options, before pytest-benchmark reads its own, and register the plugin of this run."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if config.option.gate_process:
        request, result = map(Path, config.option.gate_process)
        config.pluginmanager.register(MeasuringProcess(config, request, result), GATE)
        return
    options = options_of(config)
    try:
        named = Path(options.compare) if isinstance(options.compare, str) else None
        stored = Stored(
            options.baselines, named=named, must_read=options.compare is not None, root=config.rootpath
        )
        session = GateSession(stored=stored, judging=options.compare is not None)
        if options.record and any("::" in each for each in config.args):
            raise pytest.UsageError("a baseline holds every test: give files or folders, not single tests.")
        if options.record:
            session.commit = clean_commit(config.rootpath)
    except BaselineError as error:
        raise pytest.UsageError(str(error)) from error
    plugin = GatePlugin(config, options, session)
    if options.against is not None:
        config.option.benchmark_quiet = True  # pytest-benchmark's table would show the head alone
        ignore_unused(config)
    config.pluginmanager.register(plugin, GATE)


class GatePlugin:
    """The hooks that need the state of the run.

    Attributes:
        session: that state.
        faults: what is done to the head on purpose, in words; a suite may add to it.
    """

    def __init__(self, config: pytest.Config, options: Options, session: GateSession) -> None:
        self.session, self.faults = session, list[str]()
        self._config, self._options = config, options
        self._deselected: list[pytest.Item] = []
        self._rules: dict[str, Any] = {}
        self._clock = ReplayedClock()
        if options.against is not None:
            session.paired = Paired(
                ref=options.against, repository=config.rootpath, baselines=options.baselines,
                request=self._request, say=partial(say, config), report=options.report, faults=self.faults,
                messages=session.messages, failures=session.failures,
            )  # fmt: skip

    @property
    def judges_or_stores(self) -> bool:
        """Whether this run is judged, or stored to judge others."""
        return self.session.judging or self._options.record

    def gate_for(self, item: pytest.Item, benchmark: Any, open_while_testing: ExitStack) -> Gate:
        """The `gate` fixture of a test."""
        if not uses_gate(item):
            raise SubjectError(f"{item.nodeid} asks for gate while it runs: make it a parameter of the test.")
        device, package = device_of(item), self._config.getini("gate_package")
        measured = measures_at_once(
            benchmark, device, package, open_while_testing, explains=self.judges_or_stores
        )  # fmt: skip
        return Gate(device, package_named(package), measured)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember which files were read."""
        self.session.stored.files.add(report.nodeid)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Remember what -m, -k or --deselect left out."""
        self._deselected += items

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Keep what can be judged; add a failing item for each test that will not be measured."""
        yield
        if self.session.paired is not None:
            self._prepare(self.session.paired, [item for item in items if uses_gate(item)])
        paired = self.session.paired is not None
        unwanted = [
            item for item in items
            if is_benchmark(item) and (not uses_gate(item) if paired else item.get_closest_marker("paired"))
        ]  # fmt: skip
        leave_out(self._config, items, unwanted)
        for item in filter(uses_gate, items):
            self._set_timer(item)
        selected = {item.nodeid: device_of(item) for item in items if is_benchmark(item)}
        wanted = uses_gate if paired else is_benchmark
        deselected = {item.nodeid: device_of(item) for item in self._deselected if wanted(item)}
        for name, judgement in self.session.expect(selected, deselected).items():
            items.append(Unmeasured.of(session, name, judgement, self.session))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        """Fail a skipped benchmark as NOT MEASURED."""
        try:
            yield
        except pytest.skip.Exception as skipped:
            self._refuse_skip(item, skipped)
            raise

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """With --against: measure in processes of their own instead of running the test here."""
        if self.session.paired is None or not uses_gate(pyfuncitem):
            return None
        judgement, seconds = self.session.paired.judge(device_of(pyfuncitem), pyfuncitem.nodeid)
        self.session.judged[pyfuncitem.nodeid] = judgement
        benchmark: Any = pyfuncitem.funcargs["benchmark"]
        if "head" in seconds:  # for pytest-benchmark's storage
            self._clock.replay(benchmark, seconds["head"])
            benchmark.extra_info["base_seconds"] = seconds["base"]
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Judge a benchmark within its own test, so that JUnit shows the verdict."""
        try:
            result = yield
        except pytest.skip.Exception as skipped:
            self._refuse_skip(item, skipped)
            raise
        if is_benchmark(item):
            self._judge(item)
        return result

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the tables and the gate's summary."""
        show(self.session, terminalreporter)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Store the baseline, write the report, and turn exit status 0 into 1 if the gate is not green."""
        done = True
        if self._options.record:
            done = self._store(passed=exitstatus == 0)
        publish(self.session, self._options.report, os.environ.get("GITHUB_STEP_SUMMARY"))
        if self.session.judging:
            done = self.session.green
        if exitstatus == 0 and (not done or self.session.failures):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _store(self, *, passed: bool) -> bool:
        run = self.session
        try:
            run.messages += run.stored.store(
                run.records, set(run.selected), set(run.deselected),
                passed=passed, commit=run.commit, commit_now=commit_of(self._config.rootpath),
            )  # fmt: skip
        except BaselineError as error:
            run.messages.append(f"baseline NOT recorded: {error}")
            return False
        return True

    def _prepare(self, paired: Paired, tests: Sequence[pytest.Item]) -> None:
        """Note what is to be measured; if REF cannot run and that is accepted, go on without it."""
        self._rules = {item.nodeid: rule_of(item) for item in tests}
        for item in tests:
            paired.tests.setdefault(device_of(item), []).append(item.nodeid)
        reason = self._options.accept_unpaired
        if reason is None:
            return
        try:
            paired.try_out()
        except UnpairableError as error:
            self.session.messages.append(
                f"NOT PAIRED: judged by the stored baseline alone, because {error}. Accepted: {reason}"
            )
            self.session.paired = None
        except GateError as error:
            raise pytest.UsageError(str(error)) from error
        else:
            self.session.messages.append("--accept-unpaired was not needed: both revisions run side by side")

    def _set_timer(self, item: pytest.Item) -> None:
        """Pytest-benchmark reads one marker alone, so the test's own is put into it."""
        own = item.get_closest_marker("benchmark")
        options = {"timer": synchronised_seconds, **(own.kwargs if own is not None else {})}
        if self.session.paired is not None:
            options["timer"] = self._clock
        item.add_marker(pytest.mark.benchmark(**options), append=False)

    def _request(self, device: str, names: Sequence[str]) -> PairedRequest:
        config, ini = self._config, self._config.inipath
        # pytest looks for its settings before it loads a plugin, beside the paths that it takes for tests
        where = ("--rootdir", str(config.rootpath), *(("-c", str(ini)) if ini is not None else ()))
        own = command_of((*where, *config.invocation_params.args))
        package = self._config.getini("gate_package")
        if not package:
            raise GateError(
                "--against needs the name of the package to copy: write gate_package = NAME into pytest's "
                "settings (pytest.ini, or [tool.pytest.ini_options] of pyproject.toml)."
            )
        return PairedRequest(
            command=self._config.stash.get(COMMAND, own), device=device, package=package,
            rules={name: self._rules[name] for name in names},
            timeout_s=self._options.timeout_s, slower=self._options.slower,
        )  # fmt: skip

    def _judge(self, item: pytest.Item) -> None:
        fixture = getattr(item, "funcargs", {})["benchmark"]
        stats, info = fixture.stats, dict(fixture.extra_info)
        seconds = tuple(stats.stats.data) if stats is not None else ()
        broken = broken_laws(info)
        record = Record(name=item.nodeid, device=device_of(item), seconds=seconds, info=info)
        self.session.records.append(record)
        judgement = self.session.judged.get(item.nodeid) or self.session.judge(record, broken)
        if broken and judgement is None:
            pytest.fail(f"{Verdict.REGRESSED}: " + "; ".join(broken), pytrace=False)
        if judgement is not None and not judgement.verdict.green:
            remarks = "".join(f"\n{remark}" for remark in judgement.remarks)
            pytest.fail(f"{judgement.verdict}: {judgement.reason}{remarks}", pytrace=False)

    def _refuse_skip(self, item: pytest.Item, skipped: BaseException) -> None:
        if self.session.judging and is_benchmark(item):
            judgement = Judgement(verdict=Verdict.NOT_MEASURED, reason=str(skipped) or "skipped")
            self.session.judged[item.nodeid] = judgement
            raise pytest.fail.Exception(f"{judgement.verdict}: {judgement.reason}", pytrace=False) from None
