"""A run -> files for people: the report folder, and the step summary of a CI job."""

from __future__ import annotations

from pathlib import Path

from .measuring.machine import devices, versions
from .report import PICTURES, verdict_table, write_report
from .session import GateSession
from .whole_file import unwritten


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
    measured = sorted({devices()[record.device] for record in gate.records})
    machine = {"device": " and ".join(measured), **versions()}
    written = write_report(
        folder, gate.records, machine, gate.judged, chapters=[chapter.markdown for chapter in gate.chapters]
    )
    caption = ", ".join(f"{name} {value}" for name, value in machine.items())
    for name, draw in PICTURES.items():
        if draw(folder / name, gate.records, caption):
            written.append(folder / name)
    gate.messages.append("wrote " + ", ".join(str(path) for path in written))


def _append_summary(gate: GateSession, path: Path) -> None:
    shown = [chapter.markdown for chapter in gate.chapters] or [verdict_table(gate.judged)]
    notes = "\n".join(gate.messages)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n\n".join(["## Performance gate", *shown, gate.summary(), notes]) + "\n")
