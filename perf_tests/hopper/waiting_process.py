"""A measuring process that warms up and then waits for its turns: the parent's side of `turns`."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from xenc.gate.errors import CampaignError
from xenc.gate.measuring.turns import ready_file, turn_file
from xenc.gate.paired.campaign import end_process, ending, last_lines, read_result
from xenc.gate.paired.session import check_result

POLL_S: Final = 0.02


class WaitingProcess:
    """Started when it is made; has a process group of its own, which `close` kills.

    Args:
        name: of the process, for errors.
        command: the program and its first arguments; the paths of request and result are appended.
        request: what it reads, as JSON; has "turns".
        folder: its own, made here.
        environment: its variables.

    Raises:
        CampaignError: it cannot be started.
    """

    def __init__(
        self, name: str, command: Sequence[str], request: Mapping[str, Any], folder: Path,
        environment: Mapping[str, str],
    ) -> None:  # fmt: skip
        folder.mkdir()
        self.name, self._result, self._output = name, folder / "RESULT.json", folder / "output.txt"
        asked = folder / "REQUEST.json"
        asked.write_text(json.dumps(dict(request)), encoding="utf-8")
        try:
            with self._output.open("wb") as written:
                self._process = subprocess.Popen(
                    (*command, str(asked), str(self._result)), env=dict(environment),
                    stdin=subprocess.PIPE, stdout=written, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise CampaignError(f"{name} cannot be started ({error}).") from error

    @property
    def ready(self) -> bool:
        """Whether it has warmed up."""
        return ready_file(self._result).exists()

    def check(self) -> None:
        """Check that it still runs.

        Raises:
            UnpairableError: it ended because the base cannot run beside the head.
            CampaignError: it ended otherwise.
        """
        status = self._process.poll()
        if status is None:
            return
        if status == 0 and self._result.exists():
            check_result(read_result(self._result, self._output), ())
        raise self.error(ending(status) if status else "ended without a result")

    def turn(self, number: int, seconds: float) -> dict[str, Any]:
        """Let it measure, and wait for what it writes.

        Raises:
            CampaignError: it ended, took longer than so many seconds, or wrote no complete result.
        """
        file, deadline = turn_file(self._result, number), time.monotonic() + seconds
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: `check` says how
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        while not file.exists():
            try:
                self.check()
            except CampaignError:
                if not file.exists():  # after its last turn it ends
                    raise
            if time.monotonic() > deadline:
                raise self.error(f"did not end its turn within {seconds:.0f} s")
            time.sleep(POLL_S)
        return read_result(file, self._output)

    def error(self, happened: str) -> CampaignError:
        """An error with the last lines of its output."""
        return CampaignError(f"{self.name} {happened}{last_lines(self._output)}")

    def close(self) -> None:
        """End it and all it started."""
        with suppress(BrokenPipeError):
            end_process(self._process)
