"""One session is stored: added to the device's baseline, or the first of a new one."""

from __future__ import annotations

import fcntl
import os
import statistics
from collections.abc import Mapping
from pathlib import Path

from ..errors import BaselineError
from ..report import label, markdown_table
from .baseline import Baseline, Entry, baseline_path, read_baseline, write_baseline


def store(session: Baseline, directory: Path) -> list[str]:
    """Add a session to its device's baseline, if it measured the same; otherwise it begins a new one.

    Margins of the stored baseline are kept.

    Returns:
        Text for the reviewer: the table of changes, and the path of the baseline.

    Raises:
        BaselineError: it cannot be written, or the file belongs to another device.
    """
    path = baseline_path(directory, session.device)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        place = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise BaselineError(
            f"the folder {directory} cannot be used ({error}): choose another one."
        ) from error
    try:
        fcntl.flock(place, fcntl.LOCK_EX)  # another run may store a session too
        return _store(session, path)
    finally:
        os.close(place)


def _store(session: Baseline, path: Path) -> list[str]:
    old, told = None, list[str]()
    try:
        old = read_baseline(path) if path.exists() else None
    except BaselineError as error:
        told.append(f"the stored baseline is ignored: {error}")
    if old is not None and old.device != session.device:
        raise BaselineError(
            f"baseline {path} belongs to {old.device}, this session to {session.device}: move the file away."
        )
    new = session
    if old is not None:
        why = difference(old, session)
        new = _with_margins(old, session) if why else _joined(old, session)
        told += [f"a new baseline begins, since {why}"] if why else disagreements(old, session)
    write_baseline(path, new)
    recorded = f"recorded {len(new.entries)} benchmarks, {new.counted}, in {path}"
    return [*told, changes(old, new), recorded]


def difference(old: Baseline, session: Baseline) -> str | None:
    """Why a session does not belong to a baseline; None if it does."""
    for what in ("commit", "versions"):
        before, now = getattr(old, what), getattr(session, what)
        if before != now:
            return f"its {what} is {now}, not {before}"
    only_one = sorted(set(old.entries) ^ set(session.entries))
    if only_one:
        return f"only one of them has {', '.join(only_one)}"
    for name, entry in old.entries.items():
        before, now = _protocol(entry), _protocol(session.entries[name])
        if before != now:
            return f"{name} is measured as {now}, not {before}"
    return None


def disagreements(old: Baseline, session: Baseline) -> list[str]:
    """One line for each exact fact that differs from the sessions before; the larger value is stored."""
    lines = []
    for name, entry in old.entries.items():
        now = session.entries[name].exact
        for fact in sorted({*entry.exact, *now}):
            seen = [facts.get(fact) for facts in (entry.exact, now)]
            if seen[0] != seen[1]:
                told = ", ".join("none" if value is None else f"{value:,.6g}" for value in seen)
                lines.append(f"{name}: {fact} differs between sessions ({told}); the larger is stored")
    return lines


def changes(old: Baseline | None, new: Baseline) -> str:
    """The changes from the old to the new baseline as a Markdown table, one row per benchmark."""
    before: Mapping[str, Entry] = old.entries if old is not None else {}
    names = sorted({*before, *new.entries})
    rows = [_row(label(name), before.get(name), new.entries.get(name)) for name in names]
    commits = f"{old.commit[:12] if old is not None else 'nothing'} -> {new.commit[:12]}"
    return f"{commits}, {new.device}\n\n{markdown_table(rows)}\n" if rows else commits


def _joined(old: Baseline, session: Baseline) -> Baseline:
    def joined(entry: Entry, new: Entry) -> Entry:
        names = {*entry.exact, *new.exact}
        largest = {
            name: max(each.exact[name] for each in (entry, new) if name in each.exact) for name in names
        }
        more = {"exact": largest, "breakdown": new.breakdown, "sessions": (*entry.sessions, *new.sessions)}
        return entry.model_copy(update=more)

    entries = {name: joined(entry, session.entries[name]) for name, entry in old.entries.items()}
    return old.model_copy(update={"entries": entries})


def _with_margins(old: Baseline, session: Baseline) -> Baseline:
    entries = {
        name: entry.model_copy(update={"margin": old.entries[name].margin}) if name in old.entries else entry
        for name, entry in session.entries.items()
    }
    return session.model_copy(update={"entries": entries})


def _protocol(entry: Entry) -> dict[str, object]:
    return {**entry.protocol, "rounds": len(entry.seconds), "reference": entry.reference}


def _row(label: str, old: Entry | None, new: Entry | None) -> dict[str, str]:
    entry = new or old
    assert entry is not None
    change = "removed" if new is None else "new"
    if old is not None and new is not None:
        pairs = zip(new.seconds, old.seconds, strict=False)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        change = f"{ratio - 1:+.1%}" if _protocol(old) == _protocol(new) else "another protocol"
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
    return "" if entry is None or entry.speedup is None else f"{entry.speedup:.2f}x"


def _arrow(old: str, new: str) -> str:
    return new if old == new else f"{old or 'none'} -> {new or 'none'}"
