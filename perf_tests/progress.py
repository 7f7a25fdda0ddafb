"""One progress bar instead of dots: `pytest -p perf_tests.progress`."""

from typing import Any

import pytest
from tqdm import tqdm

NAME = "xenc-progress"


class Progress:
    """Draws a bar over the tests of a run."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._capture: Any = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._capture = session.config.pluginmanager.get_plugin("capturemanager")
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        stream = terminal._tw._file if terminal is not None else None
        self._bar = tqdm(total=len(session.items), unit="test", dynamic_ncols=True, file=stream)

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self._bar.set_description_str(nodeid.rpartition("::")[2])

    def note(self, what: str) -> None:
        """Say what a long test is at."""
        with self._capture.global_and_fixture_disabled():
            self._bar.set_postfix_str(what)

    def pytest_runtest_logfinish(self, nodeid: str, location: object) -> None:
        self._bar.set_postfix_str("")
        self._bar.update()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return ("passed", "", "") if report.passed and report.when == "call" else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if self._bar is not None:
            self._bar.set_description_str("done")
            self._bar.close()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Progress(), NAME)
