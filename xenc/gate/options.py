"""The gate's options, and which of them contradict each other.

`--benchmark-compare` is pytest-benchmark's. Without a value the gate takes it over, because pytest-benchmark
compares with the run stored last, and passes when nothing was measured. With a run's number it stays
pytest-benchmark's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run of pytest asks the gate for.

    Attributes:
        compare: None to judge nothing, True to judge by this device's baseline, or the path of a baseline.
        record: store this run, as one session of the device's baseline.
        against: the revision to compare with in the same processes.
        accept_unpaired: the reason why the stored baseline may judge if that revision cannot run.
        slower: by how much the head is made slower on purpose, as a fraction.
        baselines: the folder of the baselines.
        report: the folder of the report; None for none.
        timeout_s: seconds that one measuring process may take.
    """

    compare: Literal[True] | str | None
    record: bool
    against: str | None
    accept_unpaired: str | None
    slower: float
    baselines: Path
    report: Path | None
    timeout_s: float


def add_options(parser: pytest.Parser) -> None:
    """Add the gate's options to pytest-benchmark's."""
    group = parser.getgroup("performance gate")
    add = group.addoption
    add(
        "--against", metavar="REF",
        help="with --benchmark-compare: measure the working tree and REF side by side in the same processes",
    )  # fmt: skip
    add(
        "--accept-unpaired", metavar="REASON",
        help="if REF cannot run beside the working tree, judge by the stored baseline; REASON is shown",
    )  # fmt: skip
    add(
        "--gate-record", action="store_true",
        help="store this run in the device's baseline, if every test passes: one more session of one commit",
    )  # fmt: skip
    add(
        "--gate-slower", type=float, default=0.0, metavar="FRACTION",
        help="with --against: make the head slower by this share of its time, to watch the gate go red",
    )  # fmt: skip
    add("--gate-baselines", metavar="DIR", help="folder of the baselines (default: .benchmarks)")
    add("--gate-report", metavar="DIR", help="write report.md, report.json and pictures to DIR")
    add("--gate-process", nargs=2, metavar=("REQUEST", "RESULT"), help="used by the gate itself")
    parser.addini("gate_package", "the package that gate tests measure; --against copies it", default="")
    parser.addini("gate_timeout", "seconds that one measuring process of --against may take", default="900")


def options_of(config: pytest.Config) -> Options:
    """Read the options, and take --benchmark-compare over if it is the gate's.

    Raises:
        pytest.UsageError: they contradict each other.
    """
    option = config.option
    options = Options(
        compare=_compare(option),
        record=option.gate_record,
        against=option.against,
        accept_unpaired=option.accept_unpaired,
        slower=option.gate_slower,
        baselines=Path(option.gate_baselines or config.rootpath / ".benchmarks"),
        report=Path(option.gate_report) if option.gate_report else None,
        timeout_s=_seconds(config.getini("gate_timeout")),
    )
    _check(options)
    if (options.compare is not None or options.record) and getattr(option, "numprocesses", None):
        raise pytest.UsageError("-n runs tests side by side, which cannot be timed: leave it out.")
    return options


def _check(options: Options) -> None:
    if options.compare is not None and options.record:
        raise pytest.UsageError(
            "give --benchmark-compare or --gate-record: a run is either judged or stored."
        )
    if options.against is None and options.accept_unpaired is not None:
        raise pytest.UsageError("--accept-unpaired needs --against REF.")
    if options.against is None and options.slower:
        raise pytest.UsageError("--gate-slower needs --against REF.")
    if not 0 <= options.slower < 10:
        raise pytest.UsageError(f"--gate-slower={options.slower:g}: give a fraction, 0.05 for five percent.")
    if options.against is not None and options.compare is None:
        raise pytest.UsageError("--against REF needs --benchmark-compare.")
    if options.accept_unpaired is not None and not options.accept_unpaired.strip():
        raise pytest.UsageError("--accept-unpaired needs a reason, for the reviewer.")


def _seconds(setting: str) -> float:
    try:
        seconds = float(setting)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise pytest.UsageError(f"gate_timeout = {setting}: give a number of seconds, such as 900.")
    return seconds


def _compare(option: Any) -> Literal[True] | str | None:
    """The baseline to judge by; None if there is none, or if the comparison is pytest-benchmark's own."""
    value = getattr(option, "benchmark_compare", None) or None  # pytest-benchmark's default is []
    if isinstance(value, str) and not _is_baseline(value):
        return None
    option.benchmark_compare = []
    return value


def _is_baseline(value: str) -> bool:
    """Whether the value of --benchmark-compare names a baseline of the gate.

    Raises:
        pytest.UsageError: it names no run of pytest-benchmark's either.
    """
    path = Path(value)
    usage = (
        "Write --benchmark-compare last or as --benchmark-compare=FILE.json; without a value it takes this "
        "device's file in .benchmarks/."
    )
    if path.is_dir() or value.endswith(".py") or "::" in value:
        raise pytest.UsageError(f"--benchmark-compare took {value} as its value. {usage}")
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return True  # reading it says what is wrong
        return not isinstance(content, dict) or "machine_info" not in content
    if value.endswith(".json"):
        raise pytest.UsageError(f"--benchmark-compare={value}: no such baseline file. {usage}")
    return False
