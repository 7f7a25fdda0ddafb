"""What a reviewer is told of a paired run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from correctness_tests.gate.paired_runs import (
    CONFIGURATIONS,
    RUNS,
    made_results,
    made_verdicts,
    set_facts,
)
from xenc.gate.paired.report import headline, paired_markdown
from xenc.gate.paired.verdicts import Control, PairedVerdicts
from xenc.gate.verdict import Judgement, Verdict

BASE, HEAD = "b" * 40, "0123456789abcdef" + "0" * 24


def of_run(name, **facts):
    """A run, some facts of its head changed on seed-packed."""
    results = made_results(**RUNS[name])
    set_facts(results, "seed-packed", **facts)
    return made_verdicts(results)


def told(verdicts, **changes):
    given = {"base": BASE, "head": HEAD, "dirty": (), "machine": {}, **changes}
    return paired_markdown(verdicts, **given)


def single(verdict, reason="", exact=(), name="seed-packed"):
    control = Control(
        name="base against itself", configuration=name, channel="wall_s", arms=("same", "base"),
        expected=Verdict.PASS, judgement=Judgement(verdict=Verdict.PASS, reason=""),
    )  # fmt: skip
    judgement = Judgement(verdict=verdict, reason=reason, exact=exact)
    return PairedVerdicts(configurations={name: judgement}, controls=(control,), timed={}, processes=5)


def row_of(markdown, name):
    (row,) = [line for line in markdown.splitlines() if line.startswith("|") and f"| {name}" in line]
    return row


@pytest.mark.parametrize(
    ("run", "first"),
    [
        ("pass", "**GREEN: 4 PASS**"),
        ("regressed", "**NOT GREEN: seed-packed REGRESSED, 7.0% slower (wall time)**"),
        ("improved", "**GREEN: 3 PASS, 1 IMPROVED; skewed-packed IMPROVED, 12.1% faster (wall time)**"),
        (
            "inconclusive",
            "**NOT GREEN: short_documents-bucketed INCONCLUSIVE, between -11.9% and +19.6% (device time)**",
        ),
        ("failed", "**NOT GREEN: the controls failed, so times are not judged**"),
    ],
)
def test_the_first_line_is_the_verdict_of_the_whole(run, first):
    assert told(of_run(run)).splitlines()[0] == first


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_its_word_and_only_the_green_are_green(verdict):
    markdown = told(single(verdict, "because of this"))
    assert f"{verdict}" in row_of(markdown, "seed-packed")
    assert markdown.startswith("**GREEN" if verdict.green else "**NOT GREEN")


def test_nothing_judged_is_not_green():
    assert headline(replace(single(Verdict.PASS), configurations={})) == "NOT GREEN: nothing was measured"


def test_no_control_is_not_green():
    verdicts = replace(of_run("pass"), controls=())
    assert headline(verdicts) == "NOT GREEN: no control ran, so times are not judged"
    assert "**No control ran**" in told(verdicts)


def test_the_worst_comes_first_and_the_rest_is_counted():
    judged = dict.fromkeys("abcd", Judgement(verdict=Verdict.INCONCLUSIVE, reason=""))
    judged["e"] = Judgement(verdict=Verdict.REGRESSED, reason="", exact=("graphs: 1 -> 2",))
    line = headline(replace(single(Verdict.PASS), configurations=judged))
    assert line == "NOT GREEN: e REGRESSED, graphs: 1 -> 2; a INCONCLUSIVE; b INCONCLUSIVE; 2 more"


def test_failed_controls_are_said_first_and_what_is_exact_is_said_all_the_same():
    markdown = told(of_run("failed", graphs=2))
    assert markdown.startswith("**NOT GREEN: the controls failed, so times are not judged; ")
    assert "seed-packed REGRESSED, graphs: 1 -> 2**" in markdown.splitlines()[0]
    assert "**Controls FAILED**" in markdown
    assert "(expected REGRESSED): **wall time PASS" in markdown
    assert "NOT MEASURED" in row_of(markdown, "skewed-packed")


def test_controls_that_held_are_named_with_what_they_were():
    markdown = told(of_run("pass"))
    assert "Controls held: base against itself (expected PASS): wall time PASS +0.2% ± 2.1%" in markdown
    assert "deliberate slowdown (expected REGRESSED): wall time REGRESSED +9.9% ± 0.9%" in markdown


def test_a_row_holds_both_times_and_what_would_have_been_seen():
    row = row_of(told(of_run("regressed")), "seed-packed")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "**REGRESSED**", "seed-packed", "**+7.0% ± 1.8%**", "**+6.9% ± 2.3%**", "4.9%, 5.7%", "none",
    ]  # fmt: skip


def test_exact_changes_stand_in_the_row_worse_or_better():
    results = made_results()
    set_facts(results, "seed-packed", graphs=2)
    set_facts(results, "skewed-packed", padded_share=0.012)
    markdown = told(made_verdicts(results))
    assert "| graphs: 1 -> 2" in row_of(markdown, "seed-packed")
    assert "| padded share: 1.7% -> 1.2%" in row_of(markdown, "skewed-packed")
    assert "REGRESSED, graphs: 1 -> 2**" in markdown.splitlines()[0]


def test_the_stage_and_the_kernels_are_named_and_a_kernels_template_survives_markdown():
    results = made_results(**RUNS["regressed"])
    results[0]["configurations"]["seed-packed"] |= {
        "stages": {"head": {"forward": 0.066}, "base": {"forward": 0.06}},
        "kernels": {"head": {"void copy<4, float>": [3, 0.001]}, "base": {}},
    }
    set_facts(results, "skewed-packed", finding="unseen")
    markdown = told(made_verdicts(results))
    assert "- seed-packed: stage forward: 60.0 ms -> 66.0 ms" in markdown
    assert "- seed-packed: `kernel appeared: void copy<4, float> x3 (1.0 ms)`" in markdown
    assert "unseen" not in markdown
    assert "stage" not in row_of(markdown, "seed-packed")


def test_what_became_faster_says_how_it_is_held():
    assert "`make baseline`" in told(of_run("improved"))
    assert "`make baseline`" not in told(of_run("regressed"))


def test_what_is_undecided_says_between_what():
    assert "wall time between -10.9% and +18.2%: too noisy to decide" in told(of_run("inconclusive"))


def test_what_was_not_measured_says_why():
    assert "the base has not got it" in told(single(Verdict.NOT_MEASURED, "the base has not got it"))


def test_pipes_and_line_ends_do_not_break_the_table():
    verdicts = single(Verdict.REGRESSED, exact=("graphs: a|b\n-> 2",), name="seed|packed")
    row = row_of(told(verdicts), "seed\\|packed")
    assert "graphs: a\\|b -> 2" in row
    assert row.replace("\\|", "").count("|") == 7


def test_commits_have_twelve_digits_and_uncommitted_files_are_named():
    markdown = told(of_run("pass"), dirty=["a.py", "b.py", "c.py", "d.py", "e.py"])
    assert "Head 0123456789ab, with uncommitted changes in a.py, b.py, c.py, 2 more, against" in markdown
    assert "against base bbbbbbbbbbbb; 5 processes." in markdown
    assert "uncommitted" not in told(of_run("pass"))


def test_the_machine_is_folded_away_and_no_fact_of_it_is_needed():
    facts = {
        "device": "a <fast> GPU", "load_before": 0.51234567, "cpu_seconds": {"own": 2.5, "stolen": 0.1},
        "sm_clocks_mhz": [1700, 1980], "throttled_by": [], "unheard_of": None,
    }  # fmt: skip
    folded = told(of_run("pass"), machine=facts).partition("<details>")[2]
    assert "`device a <fast> GPU, load before 0.512346, CPU seconds (own 2.5, stolen 0.1)" in folded
    assert "SM clocks in MHz 1700 to 1980, throttled by none, unheard_of None`" in folded
    assert "<details>" not in told(of_run("pass"))


def test_times_that_could_not_be_used_are_dashes():
    verdicts = of_run("pass")
    unusable = Judgement(verdict=Verdict.INCONCLUSIVE, reason="wall time: 0 of 5 processes are usable")
    verdicts.timed[CONFIGURATIONS[0], "wall_s"] = unusable
    verdicts.configurations[CONFIGURATIONS[0]] = unusable
    markdown = told(verdicts)
    assert "| **-** " in row_of(markdown, CONFIGURATIONS[0])
    assert f"- {CONFIGURATIONS[0]}: wall time: 0 of 5 processes are usable" in markdown


def test_a_run_without_a_difference_or_with_a_fault_says_so():
    said = {"base": "b" * 40, "head": "h" * 40, "dirty": (), "machine": {}}
    verdicts = made_verdicts(made_results())
    assert "Both are the same code" in paired_markdown(verdicts, **said, same_code=True)
    assert "same code" not in paired_markdown(verdicts, **said)
    broken = paired_markdown(verdicts, **said, same_code=True, fault="slow:0.05")
    assert "contains a deliberate fault: slow:0.05" in broken
    assert "same code" not in broken
