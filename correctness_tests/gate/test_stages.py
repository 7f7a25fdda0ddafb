"""Stages of two revisions: how they are measured in whatever revision, and which one is named."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from perf_tests.scored import stage_seconds
from xenc.gate.growth import grown_calls, grown_stages
from xenc.serving.spans import STAGES


def seconds_of(pipeline, rounds):
    """The stages of a revision that scores by collating and nothing else."""

    def run(pairs):
        if pairs != "old":
            with pipeline.span("collate"):
                pass

    ready = SimpleNamespace(model=SimpleNamespace(pipeline=pipeline), device="cpu")
    return stage_seconds(ready, run, rounds)


def test_a_pipeline_is_measured_by_its_spans_and_keeps_its_own():
    pipeline = SimpleNamespace(span=nullcontext)
    assert seconds_of(pipeline, ["a", "b"]).keys() == {"collate"}
    assert vars(pipeline) == {"span": nullcontext}


def test_a_revision_without_spans_is_not_measured_and_says_so():
    pipeline = SimpleNamespace()
    found = seconds_of(pipeline, ["old"])
    assert (found, vars(pipeline)) == ({}, {})
    assert grown_stages({"forward": (9, 1.0)}, found) == ("not measured: base has no stages",)
    assert grown_stages(found, {"forward": (9, 1.0)}) == ("not measured: head has no stages",)
    assert grown_stages(found, found) == ()


SAME = dict.fromkeys(STAGES, (7, 0.5))


def timed(**seconds):
    return {stage: (7, each) for stage, each in seconds.items()}


@pytest.mark.parametrize(
    ("head", "base", "lines"),
    [
        (
            timed(tokenize=0.1, plan=0.01 + 0.0158 * 8 / 92, forward=0.326, collect=0.1),
            timed(tokenize=0.1, plan=0.01, forward=0.3102, collect=0.2),
            ["forward: 310.2 ms -> 326.0 ms (+5.1%), 92% of the growth"],
        ),
        (SAME, SAME, []),
        ({**SAME, "plan": (7, 0.4)}, SAME, []),
        (
            timed(collate=9.0, plan=0.2),
            timed(plan=0.1, forward=1.0),
            ["plan: 100.0 ms -> 200.0 ms (+100.0%), 100% of the growth"],
        ),
        (timed(collate=9.0), timed(forward=1.0), []),
        ({**SAME, "plan": (8, 0.4), "forward": (6, 0.4)}, SAME, ["plan: 7 -> 8 operators"]),
    ],
    ids=[
        "one grew most", "none grew", "one shrank", "others are on one side only", "none is on both sides",
        "more operators on a faster machine",
    ],
)  # fmt: skip
def test_the_stages_on_both_sides_that_grew_are_named_with_their_share(head, base, lines):
    assert list(grown_stages(head, base)) == lines


def test_grown_calls_are_named_new_ones_first_and_only_the_few_that_slowed_most():
    base = {"aten::mm": (12, 0.5), "aten::add": (3, 0.0031), "aten::gone": (9, 1.0), "aten::same": (1, 0.2)}
    head = {"aten::mm": (24, 0.4), "aten::add": (3, 0.0044), "aten::new": (2, 0.0013), "aten::same": (1, 0.2)}
    assert grown_calls(head, base) == (
        "appeared: aten::new x2 (1.3 ms)",
        "more often: aten::mm 12 -> 24",
        "slower: aten::add 3.1 ms -> 4.4 ms",
    )
    slower = grown_calls({f"k{n}": (1, 1.0 + n) for n in range(9)}, {f"k{n}": (1, 1.0) for n in range(9)})
    assert [line.split()[1] for line in slower] == ["k8", "k7", "k6"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("triton_poi_fused_add_3", "triton_poi_fused_add_12"),
        ("graph_4_cpp_fused_add_7", "cpp_fused_add_0"),
    ],
)
def test_two_numbers_of_one_kernel_match(ours, theirs):
    assert grown_calls({ours: (1, 1.0)}, {theirs: (1, 1.0)}) == ()


def test_names_that_match_add_up_and_numbers_of_other_kernels_are_part_of_their_names():
    base = {"triton_add_0": (1, 1.0), "triton_add_1": (2, 1.0), "gemm_128": (1, 1.0)}
    assert grown_calls({"triton_add_5": (4, 1.0), "gemm_64": (1, 1.0)}, base) == (
        "appeared: gemm_64 x1 (1000.0 ms)",
        "more often: triton_add 3 -> 4",
    )
