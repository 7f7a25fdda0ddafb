"""The gate's pytest hooks. A conftest.py loads them, not an entry point.

`--benchmark-compare` is pytest-benchmark's option. The gate takes it over, because pytest-benchmark compares
with the run stored last, and passes when nothing was measured.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ..errors import BaselineError
from .exact import broken_laws
from .publish import publish
from .report import TABLES, Record, verdict_table
from .session import GateSession
from .stored.checkout import clean_commit, commit_of
from .stored.record import store_run
from .verdict import Judgement, Verdict

MEASURED_ON = {"cpu": "cpu", "gpu": "cuda"}
"""Torch's device type of each marker."""

GATE = "xenc-gate-session"
"""The name under which `GatePlugin` is registered."""

JUDGEMENT = pytest.StashKey[Judgement]()
"""Where a benchmark stores a verdict of its own. It is then not compared with the stored baseline."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the gate's options to pytest-benchmark's."""
    group = parser.getgroup("xenc gate")
    group.addoption(
        "--record-baseline",
        action="store_true",
        help="store this run as the device's baseline of one session, if every test passes",
    )
    group.addoption(
        "--record-session",
        default=None,
        metavar="FILE",
        help="write this run to FILE, if every test passes; `python -m xenc.gate.stored.record` merges FILEs",
    )
    group.addoption("--baseline-dir", default=None, help="folder of the baselines (default: .benchmarks)")
    group.addoption("--report-dir", default=None, help="write report.md, report.json and report.png here")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Check the options, and take over --benchmark-compare before pytest-benchmark reads it."""
    compare = getattr(config.option, "benchmark_compare", None) or None  # pytest-benchmark's default is []
    if compare is not None:
        config.option.benchmark_compare = []
    if isinstance(compare, str) and not Path(compare).is_file():
        raise pytest.UsageError(f"--benchmark-compare={compare}: no such baseline file. {_COMPARE_USAGE}")
    if isinstance(compare, str) and not compare.endswith(".json"):
        raise pytest.UsageError(f"--benchmark-compare took {compare} as its value. {_COMPARE_USAGE}")
    recording = config.option.record_baseline or bool(config.option.record_session)
    if (compare is not None and recording) or (
        config.option.record_baseline and config.option.record_session
    ):
        raise pytest.UsageError(
            "give only one of --benchmark-compare, --record-baseline, --record-session: "
            "a run is either judged or stored."
        )
    directory = Path(config.option.baseline_dir or config.rootpath / ".benchmarks")
    try:
        session = GateSession(directory, compare=compare, record=recording)
        if recording:
            session.commit = clean_commit(config.rootpath)
    except BaselineError as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(GatePlugin(session), GATE)


_COMPARE_USAGE = (
    "Write --benchmark-compare last or as --benchmark-compare=FILE.json; without a value it takes this "
    "device's file in .benchmarks/."
)

_FOLDED = re.compile(r"<details><summary>(.*?)</summary>\s*(.*?)\s*</details>\n*", re.DOTALL)
"""A folded section of Markdown; the terminal shows it without the tags."""


class GatePlugin:
    """The hooks that need the state of the run."""

    def __init__(self, session: GateSession) -> None:
        self.session = session
        self._deselected: set[str] = set()

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Remember which benchmarks -m, -k or --deselect left out."""
        self._deselected.update(item.nodeid for item in items)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Add a failing item for each baseline entry that this run will not measure."""
        yield
        selected = {item.nodeid: device_of(item) for item in items if is_benchmark(item)}
        for name, judgement in self.session.expect(selected, self._deselected).items():
            items.append(Unmeasured.of(session, name, judgement, self.session))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        """Fail a skipped benchmark as NOT MEASURED."""
        try:
            yield
        except pytest.skip.Exception as skipped:
            self._refuse_skip(item, skipped)
            raise

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

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the tables and the gate's summary."""
        records, judged = self.session.records, self.session.judged
        for title, table_of in TABLES.items():
            if (table := table_of(records)) and not self.session.comparing:
                _print_table(terminalreporter, title, table)
        if self.session.comparing:
            shown = self.session.chapters or [verdict_table(judged) or "no benchmark was judged"]
            _print_table(terminalreporter, "gate", "\n".join(shown))
            terminalreporter.write_line(self.session.summary())
        elif self.session.failures:
            terminalreporter.write_line("; ".join(self.session.failures))
        for line in self.session.messages:
            terminalreporter.write_line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Store the baseline, write the report, and turn exit status 0 into 1 if the gate is not green."""
        config = session.config
        done = True
        if self.session.recording:
            done = store_run(
                self.session,
                passed=exitstatus == 0,
                session_file=Path(file) if (file := config.option.record_session) else None,
                commit_now=commit_of(config.rootpath),
            )
        publish(self.session, config.option.report_dir, os.environ.get("GITHUB_STEP_SUMMARY"))
        if self.session.comparing:
            done = self.session.green
        if exitstatus == 0 and (not done or self.session.failures):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _judge(self, item: pytest.Item) -> None:
        fixture = getattr(item, "funcargs", {})["benchmark"]
        stats, info = fixture.stats, dict(fixture.extra_info)
        seconds = tuple(stats.stats.data) if stats is not None else ()
        broken = broken_laws(info)
        record = Record(name=item.nodeid, device=device_of(item), seconds=seconds, info=info)
        self.session.records.append(record)
        judgement = self.session.judge(record, broken, item.stash.get(JUDGEMENT, None))
        if broken and judgement is None:
            pytest.fail(f"{Verdict.REGRESSED}: " + "; ".join(broken), pytrace=False)
        if judgement is not None and not judgement.verdict.green:
            notes = "".join(f"\n{note}" for note in judgement.notes)
            pytest.fail(f"{judgement.verdict}: {judgement.reason}{notes}", pytrace=False)

    def _refuse_skip(self, item: pytest.Item, skipped: BaseException) -> None:
        if self.session.comparing and is_benchmark(item):
            judgement = Judgement(verdict=Verdict.NOT_MEASURED, reason=str(skipped) or "skipped")
            self.session.judged[item.nodeid] = judgement
            raise pytest.fail.Exception(f"{judgement.verdict}: {judgement.reason}", pytrace=False) from None


class Unmeasured(pytest.Item):
    """A test that fails, in place of a benchmark that the baseline has and this run does not measure."""

    judgement: Judgement
    gate: GateSession

    @classmethod
    def of(cls, session: pytest.Session, name: str, judgement: Judgement, gate: GateSession) -> Unmeasured:
        """An item with the node id of the missing benchmark."""
        item: Unmeasured = cls.from_parent(session, name=name.rpartition("::")[2] or name, nodeid=name)
        item.judgement, item.gate = judgement, gate
        return item

    def runtest(self) -> None:
        """Fail, with the verdict."""
        self.gate.judged[self.nodeid] = self.judgement
        pytest.fail(f"{self.judgement.verdict}: {self.judgement.reason}", pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """The place of this item in pytest's reports."""
        return Path(self.nodeid.partition("::")[0]), None, self.name


def leave_out(config: pytest.Config, items: list[pytest.Item], unwanted: Sequence[pytest.Item]) -> None:
    """Deselect items, as -m and -k do."""
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]


def is_benchmark(item: pytest.Item) -> bool:
    """Whether a test uses pytest-benchmark's fixture."""
    return "benchmark" in getattr(item, "fixturenames", ())


def device_of(item: pytest.Item) -> str:
    """The device type of an item's marker; "cpu" without one."""
    return next((device for marker, device in MEASURED_ON.items() if item.get_closest_marker(marker)), "cpu")


def _print_table(terminalreporter: Any, title: str, table: str) -> None:
    terminalreporter.write_sep("=", title)
    terminalreporter.write_line(_FOLDED.sub(r"\1: \2\n", table))
