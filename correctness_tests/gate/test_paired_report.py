"""The Markdown report of a paired run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from correctness_tests.gate.paired_runs import CONFIGURATIONS, RUNS, made_results, made_verdicts, set_facts
from xenc.gate.paired.report import headline, label, paired_chapter
from xenc.gate.paired.revision import Revisions
from xenc.gate.paired.verdicts import Control, PairedVerdicts
from xenc.gate.verdict import Judgement, Verdict

BASE, HEAD = "b" * 40, "0123456789abcdef" + "0" * 24


def of_run(name, **facts):
    """A run, with some facts of seed-packed changed in its head."""
    results = made_results(**RUNS[name])
    set_facts(results, "seed-packed", **facts)
    return made_verdicts(results)


def chapter(verdicts, *, dirty=(), same_code=False, machine=None, **given):
    revisions = Revisions(
        base_commit=BASE, head_commit=HEAD, dirty=dirty, same_code=same_code, base=Path(), head=Path()
    )
    return paired_chapter(verdicts, revisions, machine or {}, **given)


def told(verdicts, **given):
    return chapter(verdicts, **given).markdown


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


NOISY = "NOT GREEN: short_documents-bucketed INCONCLUSIVE, between -11.9% and +19.6% (device time)"
FASTER = "GREEN: 3 PASS, 1 IMPROVED; skewed-packed IMPROVED, 12.1% faster (wall time)"


@pytest.mark.parametrize(
    ("run", "first", "note"),
    [
        ("pass", "GREEN: 4 PASS", ""),
        ("regressed", "NOT GREEN: seed-packed REGRESSED, 7.0% slower (wall time)", ""),
        ("improved", FASTER, "record a new baseline (`--gate-record`)"),
        ("inconclusive", NOISY, "wall time between -10.9% and +18.2%: too noisy to decide"),
        ("failed", "NOT GREEN: the controls failed, so times are not judged", ""),
    ],
)
def test_the_first_line_is_the_verdict_on_the_run_and_a_note_says_what_to_do(run, first, note):
    markdown = told(of_run(run))
    assert markdown.splitlines()[0] == f"**{first}**"
    assert note in markdown
    assert ("--gate-record" in markdown) == (run == "improved")


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_is_named_and_only_the_green_are_green(verdict):
    markdown = told(single(verdict, "because of this"))
    assert f"{verdict}" in row_of(markdown, "seed-packed")
    assert markdown.startswith("**GREEN" if verdict.green else "**NOT GREEN")
    assert verdict is not Verdict.NOT_MEASURED or "because of this" in markdown


def test_without_a_judgement_or_a_control_a_run_is_not_green():
    assert headline(replace(single(Verdict.PASS), configurations={})) == "NOT GREEN: nothing was measured"
    verdicts = replace(of_run("pass"), controls=())
    assert headline(verdicts) == "NOT GREEN: no control ran, so times are not judged"
    assert "**No control ran**" in told(verdicts)


def test_the_worst_comes_first_and_the_rest_is_counted():
    judged = dict.fromkeys("abcd", Judgement(verdict=Verdict.INCONCLUSIVE, reason=""))
    judged["e"] = Judgement(verdict=Verdict.REGRESSED, reason="", exact=("graphs: 1 -> 2",))
    line = headline(replace(single(Verdict.PASS), configurations=judged))
    assert line == "NOT GREEN: e REGRESSED, graphs: 1 -> 2; a INCONCLUSIVE; b INCONCLUSIVE; 2 more"


def test_failed_controls_come_first_and_exact_facts_are_reported_all_the_same():
    markdown = told(of_run("failed", graphs=2))
    assert markdown.startswith("**NOT GREEN: the controls failed, so times are not judged; ")
    assert "seed-packed REGRESSED, graphs: 1 -> 2**" in markdown.splitlines()[0]
    assert "**Controls FAILED**" in markdown
    assert "(expected REGRESSED): **wall time PASS" in markdown
    assert "NOT MEASURED" in row_of(markdown, "skewed-packed")


def test_controls_that_held_are_shown_with_their_outcome():
    markdown = told(of_run("pass"))
    assert "Controls held: base against itself (expected PASS): wall time PASS +0.2% ± 2.1%" in markdown
    assert "deliberate slowdown (expected REGRESSED): wall time REGRESSED +9.9% ± 0.9%" in markdown


def test_a_row_holds_both_times_and_the_detectable_slowdowns():
    row = row_of(told(of_run("regressed")), "seed-packed")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "**REGRESSED**", "seed-packed", "**+7.0% ± 1.8%**", "**+6.9% ± 2.3%**", "4.9%, 5.7%", "none",
    ]  # fmt: skip


@pytest.mark.usefixtures("suites_facts")
def test_changes_of_exact_facts_stand_in_the_row_worse_or_better():
    results = made_results()
    set_facts(results, "seed-packed", graphs=2)
    set_facts(results, "skewed-packed", padded_share=0.012)
    markdown = told(made_verdicts(results))
    assert "| graphs: 1 -> 2" in row_of(markdown, "seed-packed")
    assert "| padded share: 1.7% -> 1.2%" in row_of(markdown, "skewed-packed")
    assert "REGRESSED, graphs: 1 -> 2**" in markdown.splitlines()[0]


def test_a_regression_names_stage_and_kernels_and_a_kernels_template_survives_markdown():
    results = made_results(**RUNS["regressed"])
    for name in ("seed-packed", "skewed-packed"):
        results[0]["configurations"][name] |= {
            "stages": {"head": {"forward": [3, 0.066]}, "base": {"forward": [3, 0.06]}},
            "kernels": {
                "head": {"void copy<4, float>": [3, 0.001], "mm": [3, 0.02]},
                "base": {"mm": [3, 0.02]},
            },
            "functions": {"head": {}, "base": {}},
        }
    verdicts = made_verdicts(results)
    assert verdicts.configurations["skewed-packed"].causes == ()
    stage = "stage forward: 60.0 ms -> 66.0 ms (+10.0%), 100% of the growth"
    kernel = "kernel appeared: void copy<4, float> x3 (1.0 ms)"
    assert verdicts.configurations["seed-packed"].causes == (stage, kernel)
    notes = [line for line in told(verdicts).splitlines() if line.startswith("- ")]
    assert notes == [f"- seed-packed: {stage}", f"- seed-packed: `{kernel}`"]
    assert "stage" not in row_of(told(verdicts), "seed-packed")


def test_without_kernels_a_regression_names_functions():
    results = made_results(**RUNS["regressed"])
    results[0]["configurations"]["seed-packed"] |= {
        "stages": {"head": {}, "base": {}},
        "kernels": {"head": {}, "base": {}},
        "functions": {"head": {"a/b.py:sort": [4, 0.001]}, "base": {"a/b.py:sort": [1, 0.001]}},
    }
    verdicts = made_verdicts(results)
    assert verdicts.configurations["seed-packed"].causes == ("function more often: a/b.py:sort 1 -> 4",)
    assert "- seed-packed: function more often: a/b.py:sort 1 -> 4" in told(verdicts)


def test_a_finding_is_a_note_on_one_line():
    markdown = told(of_run("pass", recompiles=1, finding="recompiled:\n  size mismatch"))
    assert "- seed-packed: recompiled: size mismatch\n" in markdown


def test_a_test_is_called_by_its_node_id_without_the_file():
    markdown = told(single(Verdict.REGRESSED, name="perf/test_a.py::TestIt::test_a[x::y]"))
    assert "NOT GREEN: TestIt::test_a[x::y] REGRESSED" in markdown
    assert row_of(markdown, "TestIt::test_a[x::y]")
    assert "perf" not in markdown
    assert label("seed-packed") == "seed-packed"


def test_what_was_left_out_makes_a_green_run_red_and_no_other_any_less_red():
    assert headline(of_run("pass"), 2) == "NOT GREEN: 2 tests were left out; what was measured is green"
    assert told(of_run("improved"), left_out=1).startswith("**NOT GREEN: 1 test was left out")
    assert headline(of_run("regressed"), 2) == headline(of_run("regressed"))
    assert headline(of_run("failed"), 2) == headline(of_run("failed"))


def test_pipes_and_line_ends_do_not_break_the_table():
    verdicts = single(Verdict.REGRESSED, exact=("graphs: a|b\n-> 2",), name="seed|packed")
    row = row_of(told(verdicts), "seed\\|packed")
    assert "graphs: a\\|b -> 2" in row
    assert row.replace("\\|", "").count("|") == 7


def test_the_report_names_commits_uncommitted_files_equal_code_and_a_deliberate_fault():
    verdicts = of_run("pass")
    markdown = told(verdicts, dirty=["a.py", "b.py", "c.py", "d.py", "e.py"])
    assert "Head 0123456789ab, with uncommitted changes in a.py, b.py, c.py, 2 more, against" in markdown
    assert "against base bbbbbbbbbbbb; 5 processes." in markdown
    assert "uncommitted" not in told(verdicts)
    assert "same code" not in told(verdicts)
    assert "Both are the same code" in told(verdicts, same_code=True)
    broken = told(verdicts, same_code=True, faults=["5% slower", "kernel"])
    assert "contains a deliberate fault: 5% slower, kernel." in broken
    assert "same code" not in broken


def test_the_machine_is_folded_and_may_have_no_facts():
    facts = {
        "device": "a <fast> GPU", "load_before": 0.51234567, "cpu_seconds": {"own": 2.5, "stolen": 0.1},
        "sm_clocks_mhz": [1700, 1980], "throttled_by": [], "unheard_of": None,
    }  # fmt: skip
    folded = told(of_run("pass"), machine=facts).partition("<details>")[2]
    assert "`device a <fast> GPU, load before 0.512346, CPU seconds (own 2.5, stolen 0.1)" in folded
    assert "SM clocks in MHz 1700 to 1980, throttled by none, unheard_of None`" in folded
    assert "<details>" not in told(of_run("pass"))


def test_in_the_terminal_the_machine_stands_in_its_own_line_as_it_is():
    found = chapter(of_run("pass"), machine={"device": "a <fast> GPU"})
    assert found.text == found.body + "\nThe machine: device a <fast> GPU\n"
    assert found.markdown.startswith(found.body)
    without = chapter(of_run("pass"))
    assert without.text == without.markdown == without.body


def test_times_that_are_not_usable_are_dashes():
    verdicts = of_run("pass")
    unusable = Judgement(verdict=Verdict.INCONCLUSIVE, reason="wall time: 0 of 5 processes are usable")
    verdicts.timed[CONFIGURATIONS[0], "wall_s"] = unusable
    verdicts.configurations[CONFIGURATIONS[0]] = unusable
    markdown = told(verdicts)
    assert "| **-** " in row_of(markdown, CONFIGURATIONS[0])
    assert f"- {CONFIGURATIONS[0]}: wall time: 0 of 5 processes are usable" in markdown
