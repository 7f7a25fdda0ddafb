"""Facts: what counts as a break, what is accepted, and that nothing passes unmeasured."""

from __future__ import annotations

import math

import pytest

from xenc.gate.exact import FACTS, broken_laws, changed_facts, compile_counts
from xenc.watch import CompileReport

BASE = {
    "graphs": 1, "recompiles": 0, "graph_breaks": 0, "eager_fallbacks": 0, "cudagraph_recordings": 0,
    "cudagraph_skips": 0, "kernels": 210, "padded_share": 0.017, "peak_bytes": 105_300_000,
    "output_error": 1e-6, "output_tolerance": 1e-4,
    "kendall_tau": 0.99, "kendall_floor": 0.95, "ndcg_loss": 0.001, "ndcg_tolerance": 0.01,
}  # fmt: skip

NONE_ALLOWED = (
    "recompiles", "graph_breaks", "eager_fallbacks", "cudagraph_recordings", "cudagraph_skips",
)  # fmt: skip


def compared(accepted=None, **changes):
    return changed_facts({**BASE, **changes}, BASE, accepted)


def test_equal_facts_say_nothing():
    comparison = compared()
    assert (comparison.worse, comparison.better, comparison.unmeasured, comparison.notes) == ((), (), (), ())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"kernels": 212}, "kernels: 210 -> 212"),
        ({"graphs": 2}, "graphs: 1 -> 2"),
        ({"padded_share": 0.059}, "padded share: 1.7% -> 5.9%"),
        ({"peak_bytes": 110_600_000}, "peak memory: 105.3 MB -> 110.6 MB (+5.0%)"),
        ({"recompiles": 3}, "recompiles: 0 -> 3, and none is allowed"),
        ({"output_error": 2e-4}, "output error: 1e-06 -> 0.0002, beyond the tolerance 0.0001"),
        ({"output_error": math.nan}, "output error: 1e-06 -> nan, beyond the tolerance 0.0001"),
        ({"kendall_tau": 0.94}, "Kendall's tau: 0.99 -> 0.94, below the floor 0.95"),
        ({"kendall_tau": math.nan}, "Kendall's tau: 0.99 -> nan, below the floor 0.95"),
        ({"ndcg_loss": 0.02}, "nDCG lost: 0.001 -> 0.02, beyond the tolerance 0.01"),
    ],
)
def test_growth_is_a_break_that_names_both_values(changes, line):
    comparison = compared(**changes)
    assert comparison.worse == (line,)
    assert (comparison.better, comparison.unmeasured, comparison.notes) == ((), (), ())


@pytest.mark.parametrize(
    "changes", [{"peak_bytes": 106_300_000}, {"padded_share": 0.017 + 1e-12}, {"output_error": 9e-5}]
)
def test_growth_within_the_tolerance_is_none(changes):
    assert compared(**changes) == compared()


def test_padding_that_grew_by_less_than_is_printed_shows_its_digits():
    assert compared(padded_share=0.017 + 1e-6).worse == ("padded share: 0.017 -> 0.017001",)


@pytest.mark.parametrize("name", NONE_ALLOWED)
def test_what_must_never_happen_breaks_whatever_the_base_did_and_the_baseline_accepts(name):
    comparison = changed_facts({**BASE, name: 3}, {**BASE, name: 3}, {name: 3})
    assert len(comparison.worse) == 1
    assert "3 -> 3" in comparison.worse[0]


@pytest.mark.parametrize("name", NONE_ALLOWED)
def test_what_must_never_happen_breaks_where_the_base_has_no_number(name):
    assert changed_facts({name: 1}, {}).worse
    assert changed_facts({name: 1}, {name: None}).worse


def test_less_is_noted_as_better_and_is_no_break():
    comparison = compared(kernels=208, recompiles=0, peak_bytes=90_000_000)
    assert comparison.better == ("kernels: 210 -> 208", "peak memory: 105.3 MB -> 90.0 MB (-14.5%)")
    assert comparison.worse == ()


def test_a_recompile_that_went_away_is_better():
    assert changed_facts(BASE, {**BASE, "recompiles": 2}).better == ("recompiles: 2 -> 0",)


def test_growth_that_the_stored_baseline_accepts_is_said_and_is_no_break():
    comparison = compared({"kernels": 212}, kernels=212)
    assert comparison.worse == ()
    assert comparison.notes == ("kernels: 210 -> 212, accepted",)


def test_growth_beyond_what_is_accepted_is_a_break():
    assert compared({"kernels": 211}, kernels=212).worse == ("kernels: 210 -> 212",)


def test_a_stored_baseline_without_the_fact_accepts_nothing():
    assert compared({"kernels": None}, kernels=212).worse == ("kernels: 210 -> 212",)


@pytest.mark.parametrize("name", [name for name in FACTS if not FACTS[name].bound])
@pytest.mark.parametrize("value", [None, math.nan])
def test_a_fact_that_the_head_lacks_is_unmeasured(name, value):
    comparison = compared(**{name: value})
    assert len(comparison.unmeasured) == 1
    assert comparison.unmeasured[0].startswith(f"{FACTS[name].label}: ")
    without = {key: number for key, number in BASE.items() if key != name}
    assert len(changed_facts(without, BASE).unmeasured) == 1


def test_an_output_error_without_a_number_or_a_tolerance_is_unmeasured():
    assert compared(output_error=None).unmeasured == ("output error: 1e-06 -> none",)
    assert "no tolerance is given" in compared(output_tolerance=None).unmeasured[0]


def test_a_ranking_without_a_floor_is_unmeasured_and_breaks_a_law():
    assert "no floor is given" in compared(kendall_floor=None).unmeasured[0]
    assert broken_laws({"kendall_tau": 1.0}) == ["Kendall's tau 1, no floor is given"]


@pytest.mark.parametrize(
    ("held", "broken"),
    [
        ({"kendall_tau": 0.95, "kendall_floor": 0.95}, {"kendall_tau": 0.949, "kendall_floor": 0.95}),
        ({"ndcg_loss": -0.2, "ndcg_tolerance": 0.01}, {"ndcg_loss": 0.011, "ndcg_tolerance": 0.01}),
    ],
)
def test_a_ranking_that_does_not_hold_breaks_a_law(held, broken):
    assert broken_laws(held) == []
    assert len(broken_laws(broken)) == 1


def test_a_fact_that_the_base_lacks_is_noted():
    comparison = changed_facts(BASE, {**BASE, "kernels": None})
    assert comparison.notes == ("kernels: none -> 210, not measured on the base",)
    assert comparison.worse == ()


def test_a_fact_that_nobody_judges_is_an_error():
    with pytest.raises(ValueError, match="kernel_launches"):
        changed_facts({"kernel_launches": 3}, {})


def test_what_compiled_in_a_timed_region_breaks_a_law():
    report = CompileReport(
        graphs=1, recompiles=("a size changed",), graph_breaks=(), eager_fallbacks=(),
        cudagraph_recordings=1, cudagraph_skips=0,
    )  # fmt: skip
    (broken,) = broken_laws(compile_counts(report))
    assert broken.startswith("2 recompiles in the timed region")
    assert "a size changed" in broken
