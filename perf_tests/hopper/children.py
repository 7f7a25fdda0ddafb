"""Several Python processes at once, each with a limit, and how each ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

THREADS: Final = "3"
"""Of each compiler: several run at once."""

SHOWN_LINES: Final = 12
"""How many last lines of a failed process's output are shown."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended.

    Attributes:
        status: its exit status; None if it was stopped at the limit.
        seconds: how long it ran.
        output: what it printed, both streams.
    """

    status: int | None
    seconds: float
    output: str

    @property
    def problem(self) -> str | None:
        """The last lines of what it said if it failed."""
        if self.status == 0:
            return None
        ending = f"stopped after {self.seconds:.0f} s" if self.status is None else f"status {self.status}"
        last = "\n".join(self.output.rstrip().splitlines()[-SHOWN_LINES:])
        return f"{ending}\n{last}" if last else ending


def compiling_environment() -> dict[str, str]:
    """Of processes that compile while others do."""
    return {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": THREADS}


def run_all(
    commands: Mapping[str, Sequence[str]], seconds: float, environment: Mapping[str, str],
    say: Callable[[str, Ended], object],
) -> dict[str, Ended]:  # fmt: skip
    """Run Python with each list of arguments, all at once.

    Args:
        commands: arguments of `python`, by name.
        seconds: after which those that still run are stopped.
        environment: variables of the processes.
        say: told each name and ending, as it ends.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / str(number) for number, name in enumerate(commands)}
        running = {name: _start(command, files[name], environment) for name, command in commands.items()}
        began, ended = time.monotonic(), dict[str, Ended]()
        try:
            while running:
                late = time.monotonic() - began > seconds
                for name in [name for name, process in running.items() if late or process.poll() is not None]:
                    process = running.pop(name)
                    status = process.poll()
                    process.kill()
                    process.wait()
                    took = time.monotonic() - began
                    ended[name] = Ended(status=status, seconds=took, output=_read(files[name]))
                    say(name, ended[name])
                time.sleep(0.1)
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    return ended


def _start(command: Sequence[str], output: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *command], env=dict(environment), stdout=file, stderr=subprocess.STDOUT
        )


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
