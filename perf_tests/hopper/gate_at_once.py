"""One small gate whose measuring processes all warm up at once, and then measure one after the other.

Warming up takes most of a gate's time and one CPU thread of each process. While one process measures, the
others are blocked, so it has the device for itself. Each measures twice: unchanged code, then a head that is
made slower. Both are judged like any gate at its first look; there is no second look.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from perf_tests.gate_check import in_words, told
from perf_tests.hopper.waiting_process import POLL_S, WaitingProcess
from xenc.gate.errors import CampaignError, GateError
from xenc.gate.paired.campaign import LOCK, Campaign
from xenc.gate.paired.revision import two_revisions
from xenc.gate.paired.session import PairedRequest, check_result, process_request
from xenc.gate.paired.verdicts import Result, judge_campaign

FOLDER: Final = "xenc-gate-at-once-"

PASSES: Final = ("unchanged code", "slowed code")


class GateAtOnce:
    """A gate on the commit that is checked out, against itself.

    Args:
        request: what to measure; how much slower its head is does not matter.
        repository: its working tree is the head.
        environment: variables of the processes.
        slower: by how much the head is slower in the second pass; None for as much as the control.
        palindromes: of each configuration in a process, at most; None for as many as it has.
        lock: see `Campaign`; held from `start` to `close`.

    Attributes:
        results: of each pass, one of each process.
    """

    def __init__(
        self, request: PairedRequest, repository: Path, environment: Mapping[str, str],
        *, slower: float | None = None, palindromes: int | None = None, lock: Path | None = LOCK,
    ) -> None:  # fmt: skip
        self._request, self._repository, self._environment = request, repository, environment
        self._lock = lock
        self._slower = (0.0, request.slowed if slower is None else slower)
        self._palindromes = palindromes
        self._processes: list[WaitingProcess] = []
        self._open = ExitStack()
        self.results: dict[str, list[Result]] = {}

    def start(self) -> None:
        """Start all processes and return.

        Raises:
            UnreachableError, RevisionError, CampaignError: see `measure_paired`.
        """
        self._request.check()
        turns = [{"head_slower": 0.0}, {"head_slower": self._slower[1], "explain": False}]
        with ExitStack() as opened:
            revisions = opened.enter_context(two_revisions("HEAD", self._repository, self._request.package))
            opened.enter_context(Campaign((), timeout_s=self._request.timeout_s, lock=self._lock))
            made = tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True)
            folder = Path(opened.enter_context(made))
            for number in range(self._request.looks[0]):
                asked = process_request(self._request, revisions.base, revisions.head, number=number)
                process = WaitingProcess(
                    f"measuring process {number}", self._request.command,
                    {**asked, "turns": turns, "palindromes": self._palindromes},
                    folder / str(number), self._environment,
                )  # fmt: skip
                opened.callback(process.close)
                self._processes.append(process)
            self._open = opened.pop_all()

    @property
    def ready(self) -> bool:
        """Whether all processes are warm."""
        return bool(self._processes) and all(process.ready for process in self._processes)

    def wait_ready(self, seconds: float) -> None:
        """Wait until all are warm. If that fails, all are closed.

        Raises:
            UnpairableError: the base cannot run beside the head.
            CampaignError: a process ended, or was not warm after so many seconds.
        """
        deadline = time.monotonic() + seconds
        try:
            while not self.ready:
                for process in self._processes:
                    process.check()
                if time.monotonic() > deadline:
                    cold = next(process for process in self._processes if not process.ready)
                    raise cold.error(f"was not warm after {seconds:.0f} s")
                time.sleep(POLL_S)
        except BaseException:
            self.close()
            raise

    def measure(self, say: Callable[[str], object], seconds: float = math.inf) -> dict[str, Any]:
        """Let the processes measure in turns, each pass on its own, and judge.

        Args:
            say: called with lines of progress, and with all verdicts and controls.
            seconds: after which nothing more is measured; a pass that is cut short is an error.

        Returns:
            What `gate_check.live` returns for unchanged code; under "slowed" the same for slowed code.
        """
        if not self.ready:
            raise RuntimeError("a process that is not warm would warm up while others measure")
        deadline = time.monotonic() + seconds
        found = self._pass(0, say, deadline)
        return found if found.get("error") else {**found, "slowed": self._pass(1, say, deadline)}

    def close(self) -> None:
        """Kill all processes and remove their folders."""
        self._processes = []
        self._open.close()

    def _pass(self, turn: int, say: Callable[[str], object], deadline: float) -> dict[str, Any]:
        began, slower = time.monotonic(), self._slower[turn]
        results = self.results.setdefault(PASSES[turn], [])
        try:
            for number, process in enumerate(self._processes):
                started = time.monotonic()
                for waiting in self._processes[number:]:  # after its last turn a process ends
                    waiting.check()
                results.append(self._turn(process, turn, deadline - started))
                say(f"{PASSES[turn]}, {process.name}: {time.monotonic() - started:.0f} s")
            found = told(slower, judge_campaign(results, self._request.rules), time.monotonic() - began)
        except GateError as error:
            self.close()
            found = {"slower": slower, "verdicts": {}, "error": str(error)}
        for line in in_words(found):
            say(f"{PASSES[turn]}, {line}")
        return found

    def _turn(self, process: WaitingProcess, turn: int, left: float) -> Result:
        if left <= 0:
            raise CampaignError(f"no time was left for {process.name}.")
        result = process.turn(turn, min(left, self._request.timeout_s))
        check_result(result, self._request.rules)
        return result
