"""Runs fresh measuring processes one after the other and collects their results.

No process outlives its campaign. A child has a process group of its own, which is killed when `run_process`
ends. Its standard input is a pipe from the parent: if the parent is killed, the pipe closes, and the child
kills its own group.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from ..errors import CampaignError
from ..whole_file import write_whole

LOCK: Final = Path(tempfile.gettempdir()) / "xenc-gate.lock"
"""Held while a campaign measures on this machine. The kernel releases it when the process ends."""

GRACE_S: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""

GONE_S: Final = 10.0
"""Seconds to wait for a killed process; one that hangs in a driver is then left alone."""

SHOWN_LINES: Final = 15
"""How many last lines of a failed process's output an error shows."""

_FOLDER: Final = "xenc-gate-process-"


class Campaign:
    """Runs measuring processes one at a time: a context manager that holds a lock.

    Args:
        command: the program and its first arguments; the paths of request and result are appended.
        timeout_s: seconds that one process may take.
        lock: the file that only one campaign at a time can lock, usually `LOCK`; None for no lock.

    Raises:
        CampaignError: on entering, if another campaign holds the lock or the file cannot be locked.
    """

    def __init__(self, command: Sequence[str], *, timeout_s: float, lock: Path | None) -> None:
        self._command, self._timeout_s = tuple(command), timeout_s
        self._lock = None if lock is None else FileLock(lock, mode=0o666)

    def __enter__(self) -> Self:
        if self._lock is not None:
            _take(self._lock)
            now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
            _write_holder(self._lock, f"process {os.getpid()}, since {now}")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            _write_holder(self._lock, "")
            self._lock.release()

    def run_process(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one process until it ends or the timeout passes.

        Args:
            request: what the child reads, as JSON.

        Returns:
            What the child passed to `write_result`.

        Raises:
            CampaignError: the process could not start, died, hung, or wrote no complete result.
        """
        if self._lock is not None and not self._lock.is_locked:
            raise RuntimeError("a campaign must be entered before it runs a process")
        try:
            with tempfile.TemporaryDirectory(prefix=_FOLDER, ignore_cleanup_errors=True) as folder:
                return self._run_in(Path(folder), dict(request))
        except OSError as error:
            where = f"{tempfile.gettempdir()} ({error})"
            raise CampaignError(f"no measuring process can run in {where}: is the disk full?") from error

    def _run_in(self, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
        asked, answered, output = (folder / name for name in ("REQUEST.json", "RESULT.json", "output.txt"))
        asked.write_text(json.dumps(request), encoding="utf-8")
        try:
            status = self._run((*self._command, str(asked), str(answered)), output)
        except subprocess.TimeoutExpired as error:
            happened = f"hung, and was killed after {self._timeout_s:g} s"
            raise CampaignError(f"a measuring process {happened}{last_lines(output)}") from error
        if status != 0:
            raise CampaignError(f"a measuring process {ending(status)}{last_lines(output)}")
        return read_result(answered, output)

    def _run(self, command: Sequence[str], output: Path) -> int:
        with output.open("wb") as written:
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=written, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise CampaignError(
                    f"the measuring process {command[0]} cannot be started ({error})."
                ) from error
            try:
                return process.wait(self._timeout_s)
            finally:
                end_process(process)


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write the child's result atomically; the last thing that a child does.

    Raises:
        CampaignError: it cannot be written, for instance because the disk is full.
    """
    try:
        write_whole(path, json.dumps(dict(content)))
    except OSError as error:
        raise CampaignError(f"the result cannot be written to {path} ({error}): is the disk full?") from error


def end_with_parent(heard: Callable[[], object] = lambda: None) -> None:
    """From now on kill this process and all it started when its parent ends; the first thing a child does.

    The parent has ended when standard input, a pipe, is closed. Without a pipe this does nothing.

    Args:
        heard: called in another thread for each byte that the parent writes into the pipe.
    """
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            threading.Thread(target=_end_at_eof, args=(heard,), name="end-with-parent", daemon=True).start()


def _end_at_eof(heard: Callable[[], object]) -> None:
    while os.read(0, 1):  # not sys.stdin: its lock would still be held when the interpreter shuts down
        heard()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a process's whole group. A second Ctrl-C only shortens the wait."""
    try:
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
    finally:
        _signal_group(process, signal.SIGKILL)  # also children of a process that has ended
        with suppress(subprocess.TimeoutExpired):
            process.wait(GONE_S)
        if process.stdin is not None:
            process.stdin.close()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM if all of the group have ended
        os.killpg(process.pid, number)


def _take(lock: FileLock) -> None:
    path = Path(lock.lock_file)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = path.read_text(errors="replace").strip() or "just started"
        raise CampaignError(
            f"another gate is measuring on this machine ({holder}): wait until it ends, or stop it."
        ) from error
    except PermissionError as error:
        raise CampaignError(
            f"the lock {path} belongs to another user ({error}): have it removed if no gate of theirs runs."
        ) from error
    except OSError as error:
        raise CampaignError(
            f"the lock {path} cannot be taken ({error}): remove it, or free some disk space."
        ) from error


def _write_holder(lock: FileLock, text: str) -> None:
    """Write into the lock file who holds it; if that fails, the gate measures all the same."""
    # not mode "w": it may create the file, which Linux forbids for another user's file in /tmp
    with suppress(OSError), Path(lock.lock_file).open("r+") as file:
        file.truncate()
        file.write(text)


def read_result(path: Path, output: Path) -> dict[str, Any]:
    """What a child passed to `write_result`.

    Raises:
        CampaignError: it wrote nothing, or no complete object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CampaignError(f"a measuring process ended without a result{last_lines(output)}") from error
    except ValueError as error:
        happened = f"wrote a result that is not complete JSON ({error})"
        raise CampaignError(f"a measuring process {happened}{last_lines(output)}") from error
    if not isinstance(content, dict):
        raise CampaignError(f"a measuring process wrote a {type(content).__name__}, not an object.")
    return content


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status > 0:
        return f"ended with exit status {status}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was killed by {names.get(-status, f'signal {-status}')}"


def last_lines(output: Path) -> str:
    """The last lines of a process's output, to be put after what happened to it."""
    with output.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 100 * SHOWN_LINES))
        lines = file.read().decode(errors="replace").splitlines()[-SHOWN_LINES:]
    return (
        "; its last lines:\n" + "\n".join(f"  {line}" for line in lines) if lines else "; it printed nothing."
    )
