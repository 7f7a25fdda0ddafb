"""The Markdown report of a paired run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from correctness_tests.gate.paired_runs import CONFIGURATIONS, RUNS, made_results, made_verdicts, set_facts
from correctness_tests.markdown import rows_of
from xenc.gate.paired.report import headline, paired_chapter
from xenc.gate.paired.revision import Revisions
from xenc.gate.verdict import Judgement, Verdict

BASE, HEAD = "b" * 40, "0123456789abcdef" + "0" * 24


def of_run(name):
    return made_verdicts(made_results(**RUNS[name]))


def slow_but_uncontrolled(**facts):
    """A run of a slower seed-packed whose controls failed."""
    results = made_results({"seed-packed": 0.07}, slowed=0.0)
    set_facts(results, "seed-packed", **facts)
    return made_verdicts(results)


def of(**judged):
    """A run whose controls held, with these judgements."""
    return replace(of_run("pass"), configurations=judged, timed={})


def told(verdicts, *, dirty=(), same_code=False, machine=None, **given):
    revisions = Revisions(
        base_commit=BASE, head_commit=HEAD, dirty=dirty, same_code=same_code, base=Path(), head=Path()
    )
    return paired_chapter(verdicts, revisions, machine or {}, **given)


def rows(verdicts):
    table = [line for line in told(verdicts).splitlines() if line.startswith("|")]
    return {row["benchmark"]: row for row in rows_of("\n".join(table))}


def notes(verdicts):
    return [line for line in told(verdicts).splitlines() if line.startswith("- ")]


NOISY = Judgement(verdict=Verdict.INCONCLUSIVE, reason="wide")
BROKEN = Judgement(verdict=Verdict.REGRESSED, reason="", exact=("graphs:\n1 -> 2",))
FAILED = "NOT GREEN: the controls failed, so times are not judged"
WORSE = "NOT GREEN: e REGRESSED, graphs: 1 -> 2; a INCONCLUSIVE; b INCONCLUSIVE; 2 more"
FASTER = "GREEN: 3 PASS, 1 IMPROVED; skewed-packed IMPROVED, -12.1% ± 1.5% wall time"
UNDECIDED = "NOT GREEN: short_documents-bucketed INCONCLUSIVE, +2.7% ± 15.3% device time"
SLOWER = "NOT GREEN: seed-packed REGRESSED, +7.0% ± 1.8% wall time"


@pytest.mark.parametrize(
    ("verdicts", "left_out", "line"),
    [
        (of_run("pass"), 0, "GREEN: 4 PASS"),
        (of_run("pass"), 2, "NOT GREEN: 2 tests were left out; what was measured is green"),
        (of_run("regressed"), 0, SLOWER),
        (of_run("regressed"), 2, SLOWER),
        (of_run("improved"), 0, FASTER),
        (of_run("improved"), 1, "NOT GREEN: 1 test was left out; what was measured is green"),
        (of_run("inconclusive"), 0, UNDECIDED),
        (of_run("failed"), 2, FAILED),
        (slow_but_uncontrolled(graphs=2), 0, f"{FAILED}; seed-packed REGRESSED, graphs: 1 -> 2"),
        (of(**dict.fromkeys("abcd", NOISY), e=BROKEN), 0, WORSE),
        (of(**{"perf/t.py::Tests::test[x::y]": NOISY}), 0, "NOT GREEN: Tests::test[x::y] INCONCLUSIVE"),
        (of(), 0, "NOT GREEN: nothing was measured"),
        (replace(of_run("pass"), controls=()), 0, "NOT GREEN: no control ran, so times are not judged"),
    ],
)
def test_the_headline_is_the_verdict_on_the_run_with_the_worst_first(verdicts, left_out, line):
    assert headline(verdicts, left_out) == line
    assert told(verdicts, left_out=left_out).startswith(f"**{line}**\n")


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_is_named_and_only_the_green_are_green(verdict):
    verdicts = of(one=Judgement(verdict=verdict, reason="because of this"))
    assert rows(verdicts)["one"]["verdict"] == (f"{verdict}" if verdict.green else f"**{verdict}**")
    assert headline(verdicts).startswith("GREEN" if verdict.green else "NOT GREEN")
    decided = verdict.green or verdict is Verdict.REGRESSED
    assert decided or "- one: because of this" in notes(verdicts)


def test_controls_are_shown_with_their_outcome():
    held, failed, none = of_run("pass"), of_run("failed"), replace(of_run("pass"), controls=())
    assert "Controls held: base against itself (expected PASS): wall time PASS +0.2% ± 2.1%, " in told(held)
    assert "; deliberate slowdown (expected REGRESSED): wall time REGRESSED +9.9% ± 0.9%, " in told(held)
    assert "**Controls FAILED**: base against itself (expected PASS): wall time PASS +0.2%" in told(failed)
    assert "(expected REGRESSED): **wall time PASS -0.1% ± 0.9%**, **device time PASS" in told(failed)
    assert "**No control ran**" in told(none)


def test_a_row_holds_both_times_and_detectable_slowdowns_and_what_decides_is_bold():
    assert rows(of_run("regressed"))["seed-packed"] == {
        "verdict": "**REGRESSED**", "benchmark": "seed-packed", "wall time": "**+7.0% ± 1.8%**",
        "device time": "**+6.9% ± 2.3%**", "detectable slowdown (wall, device)": "4.9%, 5.7%",
    }  # fmt: skip
    assert rows(of_run("pass"))["seed-packed"]["wall time"] == "-0.0% ± 1.8%"
    assert rows(slow_but_uncontrolled())["seed-packed"]["wall time"] == "+7.0% ± 1.8%"


def test_times_that_are_not_usable_are_dashes_with_the_reason():
    verdicts, name = of_run("pass"), CONFIGURATIONS[0]
    unusable = Judgement(verdict=Verdict.INCONCLUSIVE, reason="wall time: 0 of 5 processes are usable")
    verdicts.timed[name, "wall_s"] = verdicts.configurations[name] = unusable
    assert rows(verdicts)[name]["wall time"] == "**-**"
    assert rows(verdicts)[name]["detectable slowdown (wall, device)"] == "-, 5.7%"
    assert f"- {name}: wall time: 0 of 5 processes are usable" in notes(verdicts)


@pytest.mark.usefixtures("suites_facts")
def test_notes_say_what_changed_and_what_became_slower_if_anything_did():
    results = made_results(**RUNS["regressed"])
    set_facts(results, "seed-packed", recompiles=1, finding="recompiled:\n  size mismatch")
    set_facts(results, "skewed-packed", padded_share=0.012)
    for name in ("seed-packed", "skewed-packed"):
        results[0]["configurations"][name] |= {
            "stages": {"head": {"forward": [3, 0.066]}, "base": {"forward": [3, 0.06]}},
            "kernels": {"head": {"void copy<4, float>": [3, 0.001]}, "base": {}},
            "functions": {"head": {"a/b.py:sort": [4, 0.001]}, "base": {"a/b.py:sort": [1, 0.001]}},
        }
    assert notes(made_verdicts(results)) == [
        "- seed-packed: recompiles: 0 -> 1, and none is allowed",
        "- seed-packed: stage forward: 60.0 ms -> 66.0 ms (+10.0%), 100% of the growth",
        "- seed-packed: `kernel appeared: void copy<4, float> x3 (1.0 ms)`",
        "- seed-packed: function more often: a/b.py:sort 1 -> 4",
        "- seed-packed: recompiled: size mismatch",
        "- skewed-packed: padded share: 1.7% -> 1.2%",
    ]


def test_the_report_names_commits_uncommitted_files_equal_code_and_a_deliberate_fault():
    verdicts = of_run("pass")
    assert told(verdicts).splitlines()[2] == "Head 0123456789ab, against base bbbbbbbbbbbb; 5 processes."
    dirty = told(verdicts, dirty=["a.py", "b.py", "c.py", "d.py", "e.py"])
    assert "Head 0123456789ab, with uncommitted changes in a.py, b.py, c.py, 2 more, against" in dirty
    assert "Both are the same code" in told(verdicts, same_code=True)
    broken = told(verdicts, same_code=True, faults=["5% slower", "kernel"])
    assert "contains a deliberate fault: 5% slower, kernel." in broken
    assert "same code" not in broken


def test_the_machine_has_a_line_of_its_own_and_may_have_no_facts():
    machine = told(of_run("pass"), machine={"device": "a <fast> GPU", "load": 0.51234567})
    assert machine.endswith("\nThe machine: `device a <fast> GPU, load 0.512346`\n")
    assert "machine" not in told(of_run("pass"))
