"""The claims for one processor, and whether one run reached them.

A speed over a peer is the median of each round's own ratio, in the same precision. A goal over an absent row
is not measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Final

from perf_tests.cpu.results import Results
from perf_tests.cpu.rows import ONNXRUNTIME, OPENVINO, ST, XENC
from perf_tests.side_by_side.goal import Found, Goal
from perf_tests.side_by_side.turns import Timed, ratios
from xenc.gate.record import relative_spread

INT8: Final = ("int8 + float32", "int8 + bfloat16")

OURS_IN_INT8: Final = tuple(f"{XENC} {precision}" for precision in INT8)

THEIRS_IN_INT8: Final = (*(f"{OPENVINO} {precision}" for precision in INT8), f"{ONNXRUNTIME} int8 + float32")

_IN_ORDER: Final = ("seed", "short-query", "skewed")

_OVER: Final = (
    (f"{ST} bfloat16", "bfloat16", (1.9, 2.1, 2.2), (2.1, 2.4, 2.5)),
    (f"{OPENVINO} bfloat16", "bfloat16", (1.15, 1.25, 1.3), (1.3, 1.4, 1.5)),
    (f"{ST} float32", "float32", (2.4, 2.6, 3.0), (2.6, 3.0, 3.5)),
    (f"{OPENVINO} float32", "float32", (1.1, 1.2, 1.25), (1.2, 1.3, 1.4)),
)
"""A peer, the precision of xenc, aims and stretches on each workload."""


def speed(ours: Timed, theirs: Timed) -> tuple[float, float]:
    """How many times as fast, and the relative spread of that over rounds."""
    each = ratios(theirs, ours)
    return statistics.median(each), relative_spread(each)


def _over(results: Results, *, workload: str, peer: str, precision: str) -> Found:
    found = results.workloads.get(workload)
    return None if found is None else _compared(found.ours(f"{XENC} {precision}"), found.timed(peer))


def _compared(ours: Timed | None, theirs: Timed | None) -> Found:
    if ours is None or theirs is None:
        return None
    value, spread = speed(ours, theirs)
    return value, f"{ours.name} over {theirs.name}, batch {theirs.batch_size}; spread {spread:.1%}"


def _over_int8(results: Results, *, workload: str) -> Found:
    """Over the faster of the others' int8, whatever its error, which is reported."""
    found = results.workloads.get(workload)
    if found is None:
        return None
    ours, theirs = found.fastest(*OURS_IN_INT8, ours=True), found.fastest(*THEIRS_IN_INT8)
    compared = _compared(ours, theirs)
    if compared is None:
        return None
    value, said = compared
    if ours.largest_error is not None and theirs.largest_error is not None:
        more = ours.largest_error > theirs.largest_error
        errors = f"{ours.largest_error:.2g} beside {theirs.largest_error:.2g}"
        said += f"; at {'MORE' if more else 'no more'} error: {errors}"
    return value, said


def _share(results: Results, *, of: str, row: str = f"{XENC} bfloat16") -> Found:
    found = results.workloads.get("seed")
    if found is None or found.ours(row) is None:
        return None
    share = getattr(found, of).get(row)
    return None if share is None else (share, row)


def _goals() -> Iterator[Goal]:
    for peer, precision, aims, stretches in _OVER:
        for workload, aim, stretch in zip(_IN_ORDER, aims, stretches, strict=True):
            measured = partial(_over, workload=workload, peer=peer, precision=precision)
            name = f"{workload}: speed over {peer} at its best"
            yield Goal(name=name, aim=aim, stretch=stretch, at_most=False, unit="x", measured=measured)
    for workload, aim, stretch in zip(_IN_ORDER, (1.0, 1.1, 1.1), (1.2, 1.3, 1.4), strict=True):
        name = f"{workload}: speed over the faster int8 of the others"
        measured = partial(_over_int8, workload=workload)
        yield Goal(name=name, aim=aim, stretch=stretch, at_most=False, unit="x", measured=measured)
    yield Goal(
        name="seed: attention's share of the time", aim=0.30, stretch=0.20, unit="%",
        measured=partial(_share, of="attention_share"),
    )  # fmt: skip
    yield Goal(
        name="seed: the matrix products alone over the whole", aim=0.60, stretch=0.70, at_most=False,
        unit="%", measured=partial(_share, of="products_share"),
    )  # fmt: skip


GOALS: Final = tuple(_goals())
