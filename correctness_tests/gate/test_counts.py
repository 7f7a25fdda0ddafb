"""What the working tree counts beside a revision: the lines that are printed, and the exit status."""

from __future__ import annotations

import pytest

from correctness_tests.gate.paired_runs import RULE, made_results, set_facts
from perf_tests import counts
from perf_tests.against import node_of
from xenc.gate.errors import CampaignError, RevisionError

NAMES = ("sentence-pairs-packed", "few-queries-packed")
NODES = tuple(node_of("cpu", name) for name in NAMES)


STAGES = {
    "base": {"tokenize": (4, 1.0), "plan": (3, 1.0)},
    "head": {"tokenize": (5, 1.0), "plan": (3, 2.0)},
}


def verdicts_of(*, slower: float = 0.0, **facts: float | None):
    """One process's, in which the first configuration counts something else, or takes longer."""
    results = made_results({NODES[0]: slower}, names=NODES, processes=1)
    set_facts(results, NODES[0], **facts)
    results[0]["configurations"][NODES[0]]["stages"] = STAGES
    return counts.verdicts_on(results[0], dict.fromkeys(NODES, RULE))


@pytest.fixture
def said(monkeypatch, capsys):
    """Runs the command on made-up verdicts, or on an error: exit status and lines."""

    def run(found, *arguments: str) -> tuple[int, list[str]]:
        def counted(checkout, ref, names):
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(counts, "counted", counted)
        status = counts.main(arguments)
        return status, capsys.readouterr().out.splitlines()

    return run


def test_a_count_that_grew_is_red_with_both_values_and_no_seconds(said):
    status, lines = said(verdicts_of(kernels=212))
    assert status == 1
    assert lines == [
        "sentence-pairs-packed: REGRESSED. kernels: 210 -> 212; stage tokenize: 4 -> 5 operators",
        "few-queries-packed: no more is counted than on the base",
    ]


@pytest.mark.parametrize("change", [{}, {"slower": 0.5}, {"kernels": 208}])
def test_what_counts_no_more_is_green_however_long_it_took(said, change):
    status, lines = said(verdicts_of(**change))
    assert status == 0
    assert lines == [f"{name}: no more is counted than on the base" for name in NAMES]


def test_what_cannot_be_counted_is_red_with_the_reason(said):
    assert said(RevisionError("there is no such commit")) == (1, ["NOT MEASURED. there is no such commit"])


def test_a_fact_that_the_head_alone_lacks_is_no_pass():
    with pytest.raises(CampaignError, match="not on the head: output error"):
        verdicts_of(output_error=None)


def test_an_unknown_configuration_is_refused_by_name(said):
    with pytest.raises(SystemExit):
        said(verdicts_of(), "no-such")
