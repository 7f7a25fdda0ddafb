"""Is the gate itself right? Records processes of unchanged code, and runs whole small gates on it. Resumable.

    python -m perf_tests.gate_check record FILE --count 30           processes, to be replayed
    python -m perf_tests.gate_check live FILE --count 20             whole gates on unchanged code
    python -m perf_tests.gate_check live FILE --count 20 --slower 0.05
    python -m perf_tests.gate_check live FILE --count 1 --slower 0.02 --device cuda --only seed-packed

Each line of FILE is one of them; as many are added as are missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perf_tests.against import PAIRED, REPOSITORY, paired_request
from perf_tests.replays import pack, upper_bound
from xenc.gate.errors import GateError
from xenc.gate.paired.campaign import LOCK, Campaign
from xenc.gate.paired.revision import two_revisions
from xenc.gate.paired.session import PairedRequest, measure_paired, measure_process
from xenc.gate.paired.verdicts import PairedVerdicts
from xenc.gate.verdict import Verdict

REDUCED = "sentence-pairs-packed-eager"
"""The configuration of a live run on a CPU: nothing to compile, so it takes two minutes."""


def record(request: PairedRequest, number: int) -> dict[str, Any]:
    """One process with the working tree's commit on both sides, without explanations."""
    with (
        two_revisions("HEAD", REPOSITORY, request.package) as revisions,
        Campaign(request.command, timeout_s=request.timeout_s, lock=LOCK) as campaign,
    ):
        return pack(measure_process(campaign, request, revisions.base, revisions.base, number=number + 1))


def live(request: PairedRequest) -> dict[str, Any]:
    """One whole run, and what it said."""
    started = time.monotonic()
    try:
        verdicts = measure_paired(request, "HEAD", REPOSITORY, say=print).verdicts
    except GateError as error:
        return {"slower": request.slower, "verdicts": {}, "error": str(error)}
    return told(request.slower, verdicts, time.monotonic() - started)


def told(slower: float, verdicts: PairedVerdicts, seconds: float) -> dict[str, Any]:
    """What a whole run said."""
    return {
        "slower": slower,
        "seconds": round(seconds),
        "processes": verdicts.processes,
        "verdicts": {name: [each.verdict, each.reason] for name, each in verdicts.configurations.items()},
        "controls": [[each.name, each.held, each.judgement.reason] for each in verdicts.controls],
    }


def in_words(found: dict[str, Any]) -> list[str]:
    """The verdicts and the controls of a whole run, a line each."""
    if found.get("error"):
        return [f"FAILED: {found['error']}"]
    return [
        *(f"{name}: {verdict}. {reason}" for name, (verdict, reason) in found["verdicts"].items()),
        *(
            f"control {name}: {'held' if held else 'FAILED'}. {reason}"
            for name, held, reason in found["controls"]
        ),
    ]


def repeat(path: Path, count: int, make: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Add lines to a file until it has `count`; all its lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    while len(lines) < count:
        line = json.dumps(make(len(lines)), separators=(",", ":"))
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        lines.append(line)
        print(f"{path}: {len(lines)} of {count}", flush=True)
    return [json.loads(line) for line in lines]


def tally(runs: list[dict[str, Any]]) -> str:
    """How often each verdict was given, and an upper bound on the rate of those that are not green."""
    worst = [_worst(run) for run in runs]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(worst).most_common())
    bad = sum(not Verdict(verdict).green for verdict in worst)
    return f"{counts}; not green {bad} of {len(runs)}, a rate below {upper_bound(bad, len(runs)):.1%} at 95%"


def _worst(run: dict[str, Any]) -> str:
    verdicts = [verdict for verdict, _ in run["verdicts"].values()] or [str(Verdict.NOT_MEASURED)]
    return next((verdict for verdict in verdicts if not Verdict(verdict).green), verdicts[0])


def main(arguments: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.gate_check")
    parser.add_argument("what", choices=["record", "live"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--slower", type=float, default=0.0)
    parser.add_argument("--only", default=None, help=f"of `live`: one configuration; on a CPU {REDUCED}")
    chosen = parser.parse_args(arguments)
    names = [each.name for each in PAIRED[chosen.device]]
    if chosen.only not in (None, *names):
        parser.error(f"--only {chosen.only}: choose one of {', '.join(names)}")
    reduced = REDUCED if chosen.what == "live" and chosen.device == "cpu" else None
    only = chosen.only or reduced
    request = paired_request(chosen.device, chosen.slower, names=() if only is None else (only,))
    if chosen.what == "record":
        repeat(chosen.file, chosen.count, lambda number: record(request, number))
    else:
        print(tally(repeat(chosen.file, chosen.count, lambda _: live(request))))


if __name__ == "__main__":
    main(sys.argv[1:])
