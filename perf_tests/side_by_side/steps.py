"""What every side-by-side run keeps, and how it goes on when a step of it fails."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from xenc.errors import first_line


@dataclass(kw_only=True)
class Kept:
    """All that one run measured, as it is written to a file after each step.

    Attributes:
        rehearsal: whether it was one, of whose numbers none means anything.
        machine: name, versions, and what else it did.
        problems: what failed or is missing, and why.
    """

    rehearsal: bool = False
    machine: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Leave everything in a file."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


Results = TypeVar("Results", bound=Kept)


class Steps(Generic[Results]):
    """A run, and where it leaves what it finds.

    Args:
        out: the folder of the report.
        results: nothing yet.
        report: makes Markdown of them.
        facts: what is known of the machine by now.
        tell: where lines of progress go.
    """

    def __init__(
        self, out: Path, results: Results, report: Callable[[Results], str],
        facts: Callable[[], dict[str, Any]], tell: Callable[[str], object] | None = None,
    ) -> None:  # fmt: skip
        self.out, self.results = out, results
        self._report, self._facts, self._tell = report, facts, tell
        self._began = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    @property
    def elapsed(self) -> float:
        """Seconds."""
        return time.monotonic() - self._began

    def say(self, what: str) -> None:
        """A line of progress."""
        if self._tell is None:
            print(f"[{self.elapsed:6.1f} s] {what}", flush=True)
        else:
            self._tell(what.strip())

    def keep(self) -> None:
        """Leave what there is: whoever is interrupted loses no more than one step."""
        self.results.machine = self._facts()
        self.results.write(self.out / "results.json")
        (self.out / "report.md").write_text(self._report(self.results), encoding="utf-8")

    def guarded(self, name: str, work: Callable[[], object]) -> str | None:
        """Do something; note why it failed, print all of it, and return the reason."""
        try:
            work()
        except Exception as error:
            traceback.print_exc()
            self.results.problems[name] = f"{type(error).__name__}: {first_line(error)}"
        return self.results.problems.get(name)
