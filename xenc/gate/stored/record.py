"""Merge sessions of one device into its stored baseline, and print a table of the changes.

    python -m xenc.gate.stored.record SESSION.json... [--gate-baselines DIR]

A session is what one pytest process measured (`--gate-session FILE`), in the format of a baseline.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import BaselineError
from ..report import markdown_table
from ..session import GateSession
from .baseline import Baseline, baseline_path, read_baseline, write_baseline
from .checkout import require_clean
from .entry import Entry, combine
from .evidence import measured


def merge(sessions: Mapping[str, Baseline]) -> Baseline:
    """Merge sessions, given by name, into one baseline.

    Raises:
        BaselineError: the sessions differ in what they measured, one is already merged, or one has no clean
            revision.
    """
    first_name, first = next(iter(sessions.items()))
    for name, session in sessions.items():
        require_clean(session.commit, name)
        if session.sessions != 1:
            raise BaselineError(f"{name} already holds {session.sessions} sessions; merge single sessions.")
        for what in ("commit", "device", "versions"):
            _require_same(what, first_name, getattr(first, what), name, getattr(session, what))
        differing = sorted(set(first.entries) ^ set(session.entries))
        if differing:
            raise BaselineError(
                f"{first_name} and {name} measured different benchmarks ({', '.join(differing)} in one only)"
                ": record all sessions again, with the same selection."
            )
        for benchmark, entry in first.entries.items():
            other = session.entries[benchmark]
            _require_same(f"protocol of {benchmark}", first_name, _protocol(entry), name, _protocol(other))
    entries = {name: combine([each.entries[name] for each in sessions.values()]) for name in first.entries}
    return replace(first, sessions=len(sessions), entries=entries)


def store(merged: Baseline, directory: Path) -> list[str]:
    """Write a device's baseline. Margins of the stored one are kept.

    Returns:
        Text for the reviewer: the table of changes, and the path of the baseline.

    Raises:
        BaselineError: it cannot be written, or the file belongs to another device.
    """
    path, old, told = baseline_path(directory, merged.device), None, []
    try:
        old = read_baseline(path) if path.exists() else None
    except BaselineError as error:
        told.append(f"the stored baseline is ignored: {error}")
    if old is not None and old.device != merged.device:
        raise BaselineError(
            f"baseline {path} belongs to {old.device}, these sessions to {merged.device}: move the file away."
        )
    margins = {name: entry.margin for name, entry in old.entries.items()} if old is not None else {}
    entries = {
        name: replace(entry, margin=margins.get(name, entry.margin)) for name, entry in merged.entries.items()
    }
    merged = replace(merged, entries=entries)
    write_baseline(path, merged)
    counted = f"{len(entries)} benchmarks, {merged.sessions} session{'s' if merged.sessions > 1 else ''}"
    return [*told, changes(old, merged), f"recorded {counted}, in {path}"]


def store_run(gate: GateSession, *, passed: bool, session_file: Path | None, commit_now: str) -> bool:
    """Store what one pytest run measured, as a session to be merged or as a baseline of one session.

    Args:
        gate: the run.
        passed: whether every test passed.
        session_file: the path of the session; None to write the baseline.
        commit_now: the revision at the end of the run, which must be the one at its start.

    Returns:
        Whether everything was stored; if not, `gate.messages` says why.
    """
    selected, left_out = set(gate.selected), set(gate.deselected)
    refusal = gate.stored.refusal(gate.records, selected, left_out, passed=passed)
    if refusal is None and commit_now != gate.commit:
        refusal = f"the checkout changed during the measurement, from {gate.commit} to {commit_now}"
    found = measured(gate.records, gate.commit) if refusal is None else []
    if session_file is not None and len(found) > 1:
        refusal = "a session holds one device; choose -m cpu or -m gpu"
    try:
        if refusal is not None:
            raise BaselineError(refusal)
        if session_file is not None:
            write_baseline(session_file, found[0])
            gate.messages.append(f"wrote {len(found[0].entries)} benchmarks to the session {session_file}")
        else:
            for baseline in found:
                gate.messages += store(merge({baseline.device: baseline}), gate.stored.directory)
    except BaselineError as error:
        gate.messages.append(f"baseline NOT recorded: {error}")
        return False
    return True


def changes(old: Baseline | None, new: Baseline) -> str:
    """The changes from the old to the new baseline as a Markdown table, one row per benchmark."""
    before: Mapping[str, Entry] = old.entries if old is not None else {}
    names = sorted({*before, *new.entries})
    rows = [_row(name.rpartition("/")[2], before.get(name), new.entries.get(name)) for name in names]
    commits = f"{old.commit[:12] if old is not None else 'nothing'} -> {new.commit[:12]}"
    return f"{commits}, {new.device}\n\n{markdown_table(rows)}\n" if rows else commits


def disagreements(sessions: Sequence[Baseline]) -> list[str]:
    """One line for each exact fact that differs between sessions; the largest value is stored."""
    lines = []
    for name in sessions[0].entries:
        counts = [session.entries[name].exact for session in sessions]
        for fact in sorted({fact for each in counts for fact in each}):
            seen = [each.get(fact) for each in counts]
            if len(set(seen)) > 1:
                told = ", ".join("none" if value is None else f"{value:,.6g}" for value in seen)
                lines.append(f"{name}: {fact} differs between sessions ({told}); the largest is stored")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge sessions into the device's baseline; the exit status, 1 if refused (then nothing is changed)."""
    parser = argparse.ArgumentParser(prog="python -m xenc.gate.stored.record", description=__doc__)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="SESSION.json", help="written by --gate-session"
    )
    parser.add_argument(
        "--gate-baselines", type=Path, default=Path(".benchmarks"), help="folder of the baselines"
    )
    options = parser.parse_args(arguments)
    try:
        if len({path.resolve() for path in options.files}) < len(options.files):
            raise BaselineError("a session is given twice, which would hide the drift between sessions.")
        sessions = {str(path): read_baseline(path) for path in options.files}
        told = [*store(merge(sessions), options.gate_baselines), *disagreements(list(sessions.values()))]
    except BaselineError as error:
        print(f"baseline NOT recorded: {error}", file=sys.stderr)
        return 1
    print("\n".join(told))
    return 0


def _require_same(what: str, first_name: str, first: object, name: str, value: object) -> None:
    if first != value:
        raise BaselineError(
            f"{first_name} and {name} differ in {what} ({first} and {value}): record all sessions again, "
            "one after the other on one machine."
        )


def _protocol(entry: Entry) -> dict[str, object]:
    """What must be equal for two sessions to be merged."""
    reference = entry.speedup.reference if entry.speedup is not None else None
    return {**entry.protocol, "rounds": len(entry.seconds), "reference": reference, "margin": entry.margin}


def _row(label: str, old: Entry | None, new: Entry | None) -> dict[str, str]:
    entry = new or old
    assert entry is not None
    change = "removed" if new is None else "new"
    if old is not None and new is not None:
        same = old.protocol == new.protocol and len(old.seconds) == len(new.seconds)
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(new.seconds, old.seconds, strict=False)
        )
        change = f"{ratio - 1:+.1%}" if same else "another protocol"
    return {
        "benchmark": label,
        "old median s": _median(old),
        "new median s": _median(new),
        "change": change,
        "drift": "unknown" if entry.spread is None else f"{entry.spread:.1%}",
        "speed-up": _arrow(_speedup(old), _speedup(new)),
        "margin": f"{entry.margin:.0%}",
        "exact": _exact(old, new),
    }


def _exact(old: Entry | None, new: Entry | None) -> str:
    before, after = (entry.exact if entry is not None else {} for entry in (old, new))
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return ", ".join(
        f"{name} {_arrow(*(f'{side[name]:,.6g}' if name in side else '' for side in (before, after)))}"
        for name in names
    )


def _median(entry: Entry | None) -> str:
    return "" if entry is None else f"{statistics.median(entry.seconds):.4g}"


def _speedup(entry: Entry | None) -> str:
    return "" if entry is None or entry.speedup is None else f"{entry.speedup.times:.2f}x"


def _arrow(old: str, new: str) -> str:
    return new if old == new else f"{old or 'none'} -> {new or 'none'}"


if __name__ == "__main__":
    raise SystemExit(main())
