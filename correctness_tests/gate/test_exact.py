"""Exact facts: what is a break, what is accepted, and that nothing passes unmeasured."""

from __future__ import annotations

import math

import pytest

from perf_tests import scored
from xenc.compiling.watch import CompileReport
from xenc.gate import exact
from xenc.gate.exact import Rule, broken_laws, changed_facts, compile_counts

pytestmark = pytest.mark.usefixtures("suites_facts")

FACTS = {**exact.FACTS, **scored.FACTS}

BASE = {
    "graphs": 1, "recompiles": 0, "graph_breaks": 0, "eager_fallbacks": 0, "cudagraph_recordings": 0,
    "cudagraph_skips": 0, "kernels": 210, "python_calls": 40, "padded_share": 0.017,
    "peak_bytes": 105_300_000, "output_error": 1e-6, "output_tolerance": 1e-4,
    "kendall_tau": 0.99, "kendall_floor": 0.95, "ndcg_loss": 0.001, "ndcg_tolerance": 0.01,
}  # fmt: skip


def found(head, base=BASE, accepted=None):
    """The lines of a comparison, by where they stand; nothing for an empty list."""
    comparison = changed_facts({**BASE, **head}, {**BASE, **base}, accepted)
    return {where: lines for where, lines in vars(comparison).items() if lines}


@pytest.mark.parametrize(
    ("where", "head", "line"),
    [
        ("worse", {"kernels": 212}, "kernels: 210 -> 212"),
        ("worse", {"graphs": 2}, "graphs: 1 -> 2"),
        ("worse", {"padded_share": 0.059}, "padded share: 1.7% -> 5.9%"),
        ("worse", {"padded_share": 0.017 + 1e-6}, "padded share: 0.017 -> 0.017001"),
        ("worse", {"peak_bytes": 110_600_000}, "peak memory: 105.3 MB -> 110.6 MB (+5.0%)"),
        ("worse", {"recompiles": 3}, "recompiles: 0 -> 3, and none is allowed"),
        ("worse", {"output_error": 2e-4}, "output error: 1e-06 -> 0.0002, beyond the tolerance 0.0001"),
        ("worse", {"output_error": math.nan}, "output error: 1e-06 -> nan, beyond the tolerance 0.0001"),
        ("worse", {"kendall_tau": 0.94}, "Kendall's tau: 0.99 -> 0.94, below the floor 0.95"),
        ("worse", {"kendall_tau": math.nan}, "Kendall's tau: 0.99 -> nan, below the floor 0.95"),
        ("worse", {"ndcg_loss": 0.02}, "nDCG lost: 0.001 -> 0.02, beyond the tolerance 0.01"),
        ("better", {"kernels": 208}, "kernels: 210 -> 208"),
        ("better", {"peak_bytes": 90_000_000}, "peak memory: 105.3 MB -> 90.0 MB (-14.5%)"),
        ("unmeasured", {"output_error": None}, "output error: 1e-06 -> none"),
        ("unmeasured", {"output_tolerance": None}, "output error: 1e-06 -> 1e-06, no tolerance is given"),
        ("unmeasured", {"kendall_floor": None}, "Kendall's tau: 0.99 -> 0.99, no floor is given"),
        *(("unmeasured", {name: math.nan}, None) for name in FACTS if not FACTS[name].bound),
        *(
            (None, small, None)
            for small in ({}, {"peak_bytes": 106_300_000}, {"padded_share": 0.017 + 1e-12})
        ),
        (None, {"output_error": 9e-5}, None),
    ],
)
def test_a_fact_that_differs_has_one_line_with_both_values_in_its_list(where, head, line):
    lines = found(head)
    assert list(lines) == ([] if where is None else [where])
    assert line is None or lines == {where: (line,)}


@pytest.mark.parametrize(
    ("base", "accepted", "lines"),
    [
        ({"kernels": 208}, {"kernels": 210}, {"notes": ("kernels: 208 -> 210, accepted",)}),
        ({"kernels": 208}, {"kernels": 209}, {"worse": ("kernels: 208 -> 210",)}),
        ({"kernels": 208}, {"kernels": None}, {"worse": ("kernels: 208 -> 210",)}),
        ({"kernels": None}, None, {"notes": ("kernels: none -> 210, not measured on the base",)}),
        ({"recompiles": 2}, None, {"better": ("recompiles: 2 -> 0",)}),
    ],
)
def test_growth_is_noted_up_to_what_is_accepted_and_where_the_base_has_no_number(base, accepted, lines):
    assert found({}, base, accepted) == lines


@pytest.mark.parametrize("name", [name for name in FACTS if FACTS[name].rule is Rule.NONE_ALLOWED])
def test_what_must_be_zero_breaks_whatever_the_base_has_and_a_reviewer_accepts(name):
    (line,) = found({name: 3}, {name: 3}, {name: 3})["worse"]
    assert "3 -> 3" in line
    assert changed_facts({name: 1}, {}).worse
    assert changed_facts({name: 1}, {name: None}).worse


@pytest.mark.parametrize("name", [name for name in FACTS if not FACTS[name].bound])
def test_a_fact_that_the_head_lacks_is_unmeasured(name):
    (line,) = found({name: None})["unmeasured"]
    assert line.startswith(f"{FACTS[name].label}: ")
    without = {key: number for key, number in BASE.items() if key != name}
    assert changed_facts(without, BASE).unmeasured == (line,)


@pytest.mark.parametrize(
    ("head", "base", "accepted", "lines"),
    [
        (4, 3, {}, {"worse": ("cache misses: 3 -> 4",)}),
        (0.5, 0.25, {}, {"worse": ("cache misses: 0.25 -> 0.5",)}),
        (2, 3, {}, {"better": ("cache misses: 3 -> 2",)}),
        (3, 3, {}, {}),
        (4, 3, {"cache_misses": 4}, {"notes": ("cache misses: 3 -> 4, accepted",)}),
        (5, 3, {"cache_misses": 4}, {"worse": ("cache misses: 3 -> 5",)}),
        (None, 3, {}, {"unmeasured": ("cache misses: 3 -> none",)}),
        (math.nan, 3, {}, {"unmeasured": ("cache misses: 3 -> nan",)}),
        (3, None, {}, {"notes": ("cache misses: none -> 3, not measured on the base",)}),
    ],
)
def test_a_count_of_the_tests_own_may_not_grow(head, base, accepted, lines):
    assert found({"cache_misses": head}, {"cache_misses": base}, accepted) == lines


def test_a_bound_is_no_fact_of_its_own_and_a_count_of_ones_own_breaks_nothing_without_a_base():
    assert found({"kendall_floor": 0.9, "output_tolerance": 1e-3}) == {}
    assert broken_laws({"cache_misses": 9, "unheard_of": "text"}) == []


@pytest.mark.parametrize(
    ("info", "broken"),
    [
        ({"kendall_tau": 1.0}, ["Kendall's tau 1, no floor is given"]),
        ({"kendall_tau": 0.95, "kendall_floor": 0.95}, []),
        ({"kendall_tau": 0.949, "kendall_floor": 0.95}, ["Kendall's tau 0.949, below the floor 0.95"]),
        ({"ndcg_loss": -0.2, "ndcg_tolerance": 0.01}, []),
        ({"ndcg_loss": 0.011, "ndcg_tolerance": 0.01}, ["nDCG lost 0.011, beyond the tolerance 0.01"]),
    ],
)
def test_a_benchmark_is_broken_by_a_fact_outside_its_bound_or_without_one(info, broken):
    assert broken_laws(info) == broken


def test_a_benchmark_is_broken_by_what_compiled_in_the_timed_region():
    report = CompileReport(
        graphs=1, recompiles=("a size changed",), graph_breaks=(), eager_fallbacks=(),
        cudagraph_recordings=1, cudagraph_skips=0,
    )  # fmt: skip
    (broken,) = broken_laws(compile_counts(report))
    assert broken.startswith("2 recompiles in the timed region")
    assert "a size changed" in broken
