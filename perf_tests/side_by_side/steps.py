"""What every side-by-side run keeps, and how it goes on when a step of it fails."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xenc.errors import first_line


@dataclass(kw_only=True)
class Kept:
    """All that one run measured.

    Attributes:
        rehearsal: its numbers mean nothing.
        machine: name, versions and load.
        problems: what failed or is missing, and why.
    """

    rehearsal: bool = False
    machine: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def problems_section(self) -> list[str]:
        said = "\n".join(f"- {what}: {why}" for what, why in self.problems.items())
        return [f"## What went wrong\n\n{said}"] if said else []

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


class Steps:
    """A run that writes its results after each step.

    Args:
        out: the folder of the report.
        results: empty.
        report: makes Markdown of them.
        facts: describes the machine.
        tell: where lines of progress go; None to print them.
    """

    def __init__(
        self, out: Path, results: Any, report: Callable[[Any], str],
        facts: Callable[[], dict[str, Any]], tell: Callable[[str], object] | None = None,
    ) -> None:  # fmt: skip
        self.out, self.results = out, results
        self._report, self._facts, self._tell = report, facts, tell
        self._began = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def say(self, what: str) -> None:
        if self._tell is None:
            print(f"[{self.elapsed:6.1f} s] {what}", flush=True)
        else:
            self._tell(what.strip())

    def keep(self) -> None:
        """Write what there is: an interrupted run loses no more than one step."""
        self.results.machine = self._facts()
        self.results.write(self.out / "results.json")
        (self.out / "report.md").write_text(self._report(self.results), encoding="utf-8")

    def guarded(self, name: str, work: Callable[[], object]) -> str | None:
        """Do something; if it fails, print the traceback, note the reason and return it."""
        try:
            work()
        except Exception as error:
            traceback.print_exc()
            self.results.problems[name] = f"{type(error).__name__}: {first_line(error)}"
        return self.results.problems.get(name)
