"""Where a run is shown: the terminal, the report's folder, and the step summary of a CI job."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from .measuring.machine import devices, versions
from .report import PICTURES, facts_line, speedup, tables_of, verdict_chapter
from .session import GateSession
from .whole_file import unwritten


def say(config: pytest.Config, line: str) -> None:
    """Print a line at once, while pytest captures output."""
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if terminal is not None:
        with nullcontext() if capture is None else capture.global_and_fixture_disabled():
            terminal.write_line(line)


def show(gate: GateSession, terminal: Any) -> None:
    """Print the verdicts of a run that is judged, or what it measured."""
    shown = (
        {"gate": _verdicts(gate) or "no benchmark was judged"} if gate.judging else tables_of(gate.records)
    )
    for title, markdown in shown.items():
        terminal.write_sep("=", title)
        terminal.write_line(markdown)
    last = gate.summary() if gate.judging else "; ".join(gate.failures)
    for line in filter(None, [last, *gate.messages]):
        terminal.write_line(line)


def publish(gate: GateSession, report_dir: Path | None, summary: str | None) -> None:
    """Write the report and the step summary. If one cannot be written, the gate is not green.

    Args:
        gate: the run.
        report_dir: the folder of the report; None to write none.
        summary: the file to which a comparison's Markdown is appended; None to write none.
    """
    wanted = (
        ("the report", report_dir if gate.records else None, _write_report),
        ("the step summary", summary if gate.judging else None, _append_summary),
    )
    for what, path, write in wanted:
        if path:
            try:
                write(gate, Path(path))
            except OSError as error:
                gate.failures.append(unwritten(what, error))


def _write_report(gate: GateSession, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    measured = sorted({devices()[record.device] for record in gate.records})
    machine = {"device": " and ".join(measured), **versions()}
    told = facts_line(machine)
    parts = ["# Benchmarks on " + told, _verdicts(gate), *tables_of(gate.records).values()]
    (folder / "report.md").write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")
    benchmarks = [
        {"name": r.name, "seconds": r.seconds, "speedup": speedup(r), "spread": r.spread, **r.info}
        for r in gate.records
    ]
    verdicts = {name: [judgement.verdict, judgement.reason] for name, judgement in gate.judged.items()}
    content = {"machine": machine, "benchmarks": benchmarks, "verdicts": verdicts}
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    drawn = [name for name, draw in PICTURES.items() if draw(folder / name, gate.records, told)]
    written = [folder / name for name in ("report.md", "report.json", *drawn)]
    gate.messages.append("wrote " + ", ".join(map(str, written)))


def _append_summary(gate: GateSession, path: Path) -> None:
    shown = ["## Performance gate", _verdicts(gate), gate.summary(), "\n".join(gate.messages)]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n\n".join(shown) + "\n")


def _verdicts(gate: GateSession) -> str:
    """What was measured on two revisions says more than the verdicts, which it contains."""
    return "\n".join(gate.chapters) or verdict_chapter(gate.judged)
