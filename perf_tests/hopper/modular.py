"""Rerankers of ModernBERT's architecture: Ettin's chains of modules and gte's classifier."""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final

import torch

from perf_tests.ettin_models import GEOMETRIES, Geometry, stored
from perf_tests.hopper.modular_contestants import (
    FLAT,
    OURS,
    PADDED,
    WORK,
    made_ready,
    makings,
    ours_of,
    problem_of,
)
from perf_tests.peers.peer import MAX_LENGTH
from perf_tests.side_by_side.turns import Timed, ratio, time_in_turns
from xenc.gate.record import relative_spread
from xenc.profiling.report import table
from xenc.text.tokens import tokenize

ROUNDS: Final = 5
ON_GPU: Final = SimpleNamespace(device="cuda", dtype=torch.bfloat16)


def ready_packed(geometry: Geometry, setting: Any = ON_GPU) -> None:
    """Make a geometry's checkpoints, and compile what `modular_rows` times of xenc."""
    model = ours_of(stored(geometry), setting)
    with model:
        model.warmup(WORK[setting.device].batch_sizes[0])


def modular_rows(
    setting: Any, geometries: Sequence[Geometry], time_left: Callable[[], bool], say: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Time the contestants of each geometry in turns.

    Args:
        setting: has a `device` and a `dtype`.
        geometries: of `perf_tests.ettin_models`.
        time_left: whether another geometry, or another round, may begin.
        say: takes lines of progress.

    Returns:
        One row for each geometry, with its "problem" if it failed.
    """
    rows: list[dict[str, Any]] = []
    for geometry in geometries:
        say(f"  {geometry.name}")
        row = {"geometry": geometry.name, "published_pairs_per_s": geometry.published, "problem": None}
        rows.append(row)
        try:
            row |= _row(setting, geometry, time_left) if time_left() else {"problem": "no time was left"}
        except Exception as error:
            row["problem"] = problem_of(error)
        gc.collect()
    return rows


def _row(setting: Any, geometry: Geometry, time_left: Callable[[], bool]) -> dict[str, Any]:
    pairs, checkpoints = WORK[setting.device].round(), stored(geometry)
    ours = ours_of(checkpoints, setting)
    with ours:
        started = time.perf_counter()
        counts = tokenize(ours.tokenizer, pairs, max_length=MAX_LENGTH).counts
        tokenized_per_s = len(pairs) / (time.perf_counter() - started)
        parameters = sum(each.numel() for each in ours.parameters())
        made = [
            made_ready(setting, checkpoints, pairs, *making) for making in makings(setting, checkpoints, ours)
        ]
        ready = [(contestant, timed) for contestant, timed, _ in made if contestant is not None]
        rounds = time_in_turns(ready, [pairs] * ROUNDS, lambda: None, time_left)
    timed_by_name = {timed.name: timed for _, timed, _ in made}
    return {
        "parameters": parameters, "pairs": len(pairs), "n": rounds,
        "tokens_per_pair": sum(counts) / len(pairs), "tokenized_per_s": tokenized_per_s,
        "contestants": {timed.name: _measured(timed, len(pairs), padding) for _, timed, padding in made},
        **_speed(timed_by_name),
        "problem": timed_by_name[OURS].problem,
    }  # fmt: skip


def _measured(timed: Timed, pairs: int, padding: float | None) -> dict[str, Any]:
    rates = [pairs / second for second in timed.seconds]
    return {
        "pairs_per_s": statistics.median(rates) if rates else None,
        "spread": relative_spread(timed.seconds) if rates else None,
        "padding": timed.waste if timed.name == OURS else padding,
        "error": timed.output_error, "tolerance": timed.output_tolerance, "stands": timed.stands,
        "compiled": sum(timed.counts.values()), "finding": timed.finding, "problem": timed.problem,
        "warmup_s": timed.warmup_s, "seconds": timed.seconds, "device_seconds": timed.device_seconds,
    }  # fmt: skip


def _speed(timed: dict[str, Timed]) -> dict[str, Any]:
    """How many times as fast as each xenc is, where both stand."""
    ours, flat = timed[OURS], timed[FLAT]
    padded = [each for name, each in timed.items() if name.startswith(PADDED) and each.stands]
    best = min(padded, key=lambda each: statistics.median(each.seconds), default=None)
    return {
        "best_sdpa": None if best is None else best.name,
        "over_sdpa": ratio(best, ours) if best is not None and ours.stands else None,
        "over_flattened": ratio(flat, ours) if flat.stands and ours.stands else None,
    }


HEADER: Final = (
    "model", "M parameters", "xenc, pairs/s", "spread", "padding", "error / tolerated", "SDPA, pairs/s",
    "batch", "padding", "error / tolerated", "flattened, pairs/s", "error / tolerated", "xenc over SDPA",
    "over flattened", "late", "n", "published, pairs/s",
)  # fmt: skip


def modular_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown, with what to know about them, and what went wrong."""
    lines = [_line(row) for row in rows]
    return "\n\n".join([table(HEADER, lines), LEGEND, *filter(None, (_notes(row) for row in rows))])


LEGEND: Final = (
    "Medians; every contestant once in each round, on the same pairs, from texts to scores. SDPA is "
    "sentence-transformers at the better of its batch sizes, flattened is sentence-transformers in "
    "FlashAttention without padding. Weights are random and the tokenizer is small. Published rates are of "
    "other texts on another H100: Ettin's flattened, gte's padded. They are no contestants."
)


def _line(row: dict[str, Any]) -> list[str]:
    published = f"{row['published_pairs_per_s']:,}" if row["published_pairs_per_s"] else ""
    if "contestants" not in row:
        return [row["geometry"], *[""] * (len(HEADER) - 2), published]
    contestants, best = row["contestants"], row["best_sdpa"]
    ours, flat, padded = contestants[OURS], contestants[FLAT], contestants.get(best, {})
    return [
        row["geometry"], f"{row['parameters'] / 1e6:,.1f}", _rate(ours), _share(ours.get("spread")),
        _share(ours.get("padding")), _error(ours), _rate(padded),
        "" if best is None else best.removeprefix(PADDED), _share(padded.get("padding")), _error(padded),
        _rate(flat), _error(flat), _times(row["over_sdpa"]), _times(row["over_flattened"]),
        str(ours["compiled"]), str(row["n"]), published,
    ]  # fmt: skip


def _notes(row: dict[str, Any]) -> str:
    """What cannot stand in a cell: how fast texts become tokens, and problems."""
    problems = {
        name: each["problem"] for name, each in row.get("contestants", {}).items() if each["problem"]
    } or ({"": row["problem"]} if row["problem"] else {})
    said = [f"{name}: {problem}".removeprefix(": ") for name, problem in problems.items()]
    if "contestants" in row:
        said.insert(0, (
            f"{row['pairs']:,} pairs of {row['tokens_per_pair']:.0f} tokens; "
            f"{row['tokenized_per_s']:,.0f} pairs/s only tokenized"
        ))  # fmt: skip
    return f"- {row['geometry']}: {'; '.join(said)}." if said else ""


def _rate(each: dict[str, Any]) -> str:
    return f"{each['pairs_per_s']:,.0f}" if each.get("pairs_per_s") else ""


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _times(times: float | None) -> str:
    return "" if times is None else f"{times:.2f}x"


def _error(each: dict[str, Any]) -> str:
    if each.get("error") is None:
        return ""
    wrong = "" if each["error"] <= each["tolerance"] else " WRONG"
    return f"{each['error']:.1g} / {each['tolerance']:.1g}{wrong}"


if __name__ == "__main__":
    ready_packed(next(each for each in GEOMETRIES if each.name == sys.argv[1]))
    os._exit(0)  # threads and graphs need not be waited for
