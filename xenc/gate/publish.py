"""A run -> files for people: the report folder, and the step summary of a CI job."""

from __future__ import annotations

from pathlib import Path

from .machine import versions
from .picture import draw, draw_requests
from .report import verdict_table, write_report
from .session import GateSession, devices


def publish(gate: GateSession, report_dir: str | None, summary: str | None) -> None:
    """Write the report and the step summary. If one cannot be written, the gate is not green.

    Args:
        gate: the run.
        report_dir: the folder of the report; None to write none.
        summary: the file to which a comparison's Markdown is appended; None to write none.
    """
    wanted = (
        ("the report", report_dir if gate.records else None, _write_report),
        ("the step summary", summary if gate.comparing else None, _append_summary),
    )
    for what, path, write in wanted:
        if path:
            try:
                write(gate, Path(path))
            except OSError as error:
                gate.failures.append(unwritten(what, error))


def unwritten(what: str, error: OSError) -> str:
    """The reason why the gate is not green when a file cannot be written."""
    return f"{what} cannot be written ({error}): free some disk space, or choose another path"


def _write_report(gate: GateSession, folder: Path) -> None:
    measured = sorted({devices()[record.device] for record in gate.records})
    machine = {"device": " and ".join(measured), **versions()}
    written = write_report(folder, gate.records, machine, gate.judged, chapters=gate.chapters)
    caption = ", ".join(f"{name} {value}" for name, value in machine.items())
    for name, make in (("report.png", draw), ("requests.png", draw_requests)):
        if make(folder / name, gate.records, caption):
            written.append(folder / name)
    gate.messages.append("wrote " + ", ".join(str(path) for path in written))


def _append_summary(gate: GateSession, path: Path) -> None:
    shown = gate.chapters or [verdict_table(gate.judged)]
    notes = "\n".join(gate.messages)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n\n".join(["## Performance gate", *shown, gate.summary(), notes]) + "\n")
