"""Stages of two revisions: how they are measured in whatever revision, and which one is named."""

from __future__ import annotations

from types import SimpleNamespace

from perf_tests.explain import stage_seconds
from xenc.gate.paired.growth import grown_stage
from xenc.serving.spans import STAGES, no_span


def arm(pipeline):
    """A revision that scores by collating and nothing else."""

    def logits(pairs):
        if pairs != "old":
            with pipeline.span("collate"):
                pass

    return SimpleNamespace(model=SimpleNamespace(pipeline=pipeline), device="cpu", logits=logits)


def test_a_pipeline_is_measured_by_its_spans_and_keeps_its_own():
    pipeline = SimpleNamespace(span=no_span)
    assert stage_seconds(arm(pipeline), ["a", "b"]).keys() == {"collate"}
    assert vars(pipeline) == {"span": no_span}


def test_a_revision_without_spans_is_not_measured_and_says_so():
    pipeline = SimpleNamespace()
    found = stage_seconds(arm(pipeline), ["old"])
    assert (found, vars(pipeline)) == ({}, {})
    assert grown_stage({"forward": 1.0}, found) == "not measured: base has no spans"


def test_the_stage_that_grew_most_is_named_with_its_share():
    base = {"tokenize": 0.1, "plan": 0.01, "forward": 0.3102, "collect": 0.2}
    head = {"tokenize": 0.1, "plan": 0.01 + 0.0158 * 8 / 92, "forward": 0.326, "collect": 0.1}
    assert grown_stage(head, base) == "forward: 310.2 ms -> 326.0 ms (+5.1%), 92% of the growth"


def test_no_stage_is_named_where_none_grew():
    same = dict.fromkeys(STAGES, 0.5)
    assert grown_stage(same, same) is None
    assert grown_stage({**same, "plan": 0.4}, same) is None


def test_a_stage_that_one_side_lacks_is_not_compared():
    assert grown_stage({"collate": 9.0, "plan": 0.2}, {"plan": 0.1, "forward": 1.0}) == (
        "plan: 100.0 ms -> 200.0 ms (+100.0%), 100% of the growth"
    )
    assert grown_stage({"collate": 9.0}, {"forward": 1.0}) is None
