"""What the gate prints."""

from __future__ import annotations

from typing import Any

import pytest

from .report import tables_of, verdict_table
from .session import GateSession


def say(config: pytest.Config, line: str) -> None:
    """Print a line at once, while pytest captures output."""
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if terminal is None:
        return
    if capture is None:
        terminal.write_line(line)
        return
    with capture.global_and_fixture_disabled():
        terminal.write_line(line)


def show(session: GateSession, terminal: Any) -> None:
    """Print the verdicts of a run that is judged, or what it measured."""
    if session.judging:
        shown = [chapter.text for chapter in session.chapters]
        shown = shown or [verdict_table(session.judged) or "no benchmark was judged"]
        _print_table(terminal, "gate", "\n".join(shown))
        terminal.write_line(session.summary())
    else:
        for title, table in tables_of(session.records).items():
            _print_table(terminal, title, table)
        if session.failures:
            terminal.write_line("; ".join(session.failures))
    for line in session.messages:
        terminal.write_line(line)


def _print_table(terminal: Any, title: str, table: str) -> None:
    terminal.write_sep("=", title)
    terminal.write_line(table)
