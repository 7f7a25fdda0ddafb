"""The claims for a GPU, and whether one run reached them.

A goal of packed batches is judged by the fastest packed row in the table's own precision, and names it: the
best token budget and compile mode are measured on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perf_tests.hopper.results import Results
from perf_tests.side_by_side.goal import Found, Goal
from perf_tests.side_by_side.turns import ratio
from xenc.gate.verdict import Verdict

FEWEST_REQUESTS: Final = 1000
"""Requests of which a 99th percentile means something: ten are slower."""

LATE: Final = ("recompiles", "graph_breaks", "eager_fallbacks", "cudagraph_skips")
"""Names of `xenc.gate.exact.compile_counts`; CUDA graphs that were recorded are among the recompiles."""


def _over_recipe(results: Results) -> Found:
    ours, recipe = results.best_packed(), results.row("compiled-sdpa-sorted")
    return None if ours is None or recipe is None else (ratio(ours, recipe), ours.name)


def _over_peer(results: Results) -> Found:
    ours, peer = results.best_packed(), results.best_peer()
    return None if ours is None or peer is None else (ratio(ours, peer), f"{ours.name} over {peer.name}")


def _device_mfu(results: Results) -> Found:
    found = {
        row.name: mfu
        for row in results.rows
        if row.stands and row.name.startswith("packed") and "float8" not in row.name
        and (mfu := results.device_mfu(row)) is not None
    }  # fmt: skip
    return _possible(max(((mfu, name) for name, mfu in found.items()), default=None))


def _end_to_end_mfu(results: Results) -> Found:
    ours = results.best_packed()
    return None if ours is None else _possible((results.end_to_end_mfu(ours), ours.name))


def _possible(found: Found) -> Found:
    """None for more than the peak, which was then measured while something else ran."""
    return None if found is None or found[0] > 1 else found


def _float8(results: Results) -> Found:
    """Over plain packed, which differs only in precision; 0 if it ranks otherwise."""
    quantised, plain = results.row("packed-float8"), results.row("packed")
    if quantised is None or plain is None or quantised.kendall_tau is None:
        return None
    held = quantised.kendall_floor is not None and quantised.kendall_tau >= quantised.kendall_floor
    said = f"Kendall's tau {quantised.kendall_tau:.3f}, the ranking {'holds' if held else 'does NOT hold'}"
    return (ratio(plain, quantised) if held else 0.0), said


def _sound_requests(results: Results) -> list[dict[str, Any]]:
    """Those under rows that stand, without late compilations."""
    requests = results.equal_requests
    return [each for each in requests if results.row(each["execution"]) is not None and not _late(each)]


def _late(counts: Mapping[str, Any]) -> int:
    """What compiled, was recorded, broke or fell to eager."""
    return sum(counts[name] for name in LATE)


def _request(results: Results) -> Found:
    return min(((each["p50_s"], each["execution"]) for each in _sound_requests(results)), default=None)


def _steadiness(results: Results) -> Found:
    many = [each for each in _sound_requests(results) if each["requests"] >= FEWEST_REQUESTS]
    each = min(many, key=lambda each: each["p50_s"], default=None)
    if each is None:
        return None
    return each["p99_s"] / each["p50_s"], f"{each['execution']}, n = {each['requests']:,}"


def _late_compiles(results: Results) -> Found:
    found = results.random_requests
    if not found or results.row(found["execution"]) is None:
        return None
    late = _late(found)
    if not late and found["requests"] < found["asked_for"]:
        return None
    return float(late), f"{found['requests']:,} of {found['asked_for']:,} requests"


def _first_score(results: Results) -> Found:
    saved = results.first_score_s.get("saved")
    return (sorted(saved)[len(saved) // 2], f"n = {len(saved)}") if saved else None


def _waste(results: Results) -> Found:
    ours = results.best_packed()
    return None if ours is None or ours.waste is None else (ours.waste, ours.name)


def _differing(results: Results) -> Found:
    name = "packed-deterministic"
    count = results.differing_scores.get(name)
    return None if count is None or results.row(name) is None else (float(count), name)


def _gate(results: Results) -> Found:
    """Of unchanged code and of code made 2% slower."""
    found = results.gate
    if not found.get("verdicts") or not found.get("slowed", {}).get("verdicts"):
        return None
    verdicts = [
        (verdict, expected)
        for said, expected in ((found, Verdict.PASS), (found["slowed"], Verdict.REGRESSED))
        for verdict, _ in said["verdicts"].values()
    ]
    wrong = sum(verdict != expected for verdict, expected in verdicts)
    return float(wrong), ", ".join(verdict for verdict, _ in verdicts)


GOALS: Final = (
    Goal(
        name="packed, time over the recipe compiled and sorted",
        aim=0.55, stretch=0.40, unit="x", measured=_over_recipe,
    ),
    Goal(
        name="packed, time over the best of sentence-transformers",
        aim=0.60, stretch=0.50, unit="x", measured=_over_peer,
    ),
    Goal(
        name="MFU on the device",
        aim=0.60, stretch=0.65, at_most=False, unit="%", measured=_device_mfu,
    ),
    Goal(
        name="MFU from texts to scores",
        aim=0.50, stretch=0.55, at_most=False, unit="%", measured=_end_to_end_mfu,
    ),
    Goal(
        name="float8, speed over bfloat16, the ranking held",
        aim=1.2, stretch=1.3, at_most=False, unit="x", measured=_float8,
    ),
    Goal(
        name="rank a query and 100 documents, median", aim=0.012, stretch=0.008, unit="ms", measured=_request
    ),
    Goal(
        name="the same, 99th percentile / median", aim=1.2, stretch=1.1, unit="x", measured=_steadiness
    ),
    Goal(name="compilations during requests of random sizes", aim=0, measured=_late_compiles),
    Goal(
        name="process start to first score, saved cache", aim=10, stretch=6, unit="s", measured=_first_score
    ),
    Goal(name="padding / all tokens", aim=0.02, unit="%", measured=_waste),
    Goal(name="scores with a bit that depends on company", aim=0, measured=_differing),
    Goal(name="the gate: verdicts other than expected", aim=0, measured=_gate),
)  # fmt: skip
