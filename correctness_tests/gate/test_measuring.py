"""Real measuring processes, of this code on both sides: a fault in the head shows in its facts, alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perf_tests.against import ON_CPU
from xenc.gate.paired.campaign import Campaign
from xenc.gate.paired.revision import snapshot
from xenc.gate.paired.session import PairedRequest, measure_process
from xenc.gate.paired.verdicts import judge_campaign
from xenc.gate.verdict import Verdict

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]

PLAIN = ("sentence-pairs-sdpa-sorted", "sentence-pairs-packed-eager")
"""What starts fast, for it compiles nothing."""

BYTES = 50_000_000


@pytest.fixture(scope="module")
def revisions(tmp_path_factory) -> tuple[Path, Path]:
    """Two copies of the package as it is."""
    folders = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("head")
    for folder in folders:
        snapshot(REPOSITORY / "xenc", folder)
    return folders


@pytest.fixture
def measured(revisions, monkeypatch):
    """Runs one process; its facts by configuration, and the verdicts."""

    def run(fault: str | None, names: tuple[str, ...] = PLAIN):
        request = PairedRequest(
            command=(sys.executable, "-m", "perf_tests.measuring"),
            device="cpu",
            rules=dict.fromkeys(names, ON_CPU.rule),
            seeded=0.05,
            timeout_s=600,
            fault=fault,
        )
        monkeypatch.chdir(REPOSITORY)
        with Campaign(request.command, timeout_s=request.timeout_s, lock=None) as campaign:
            result = measure_process(campaign, request, *revisions, number=0)
        facts = {name: result["configurations"][name]["facts"] for name in names}
        return facts, judge_campaign([result], request.rules).configurations

    return run


def differing(head: dict, base: dict) -> set[str]:
    """The names of what is not the same."""
    assert set(head) == set(base)
    return {name for name in base if head[name] != base[name]}


def test_without_a_fault_the_facts_are_the_same(measured):
    facts, judged = measured(None)
    for name in PLAIN:
        head, base = facts[name]["head"], facts[name]["base"]
        assert base["kernels"] > 100
        assert base["peak_bytes"] > 0
        assert base["output_error"] <= base["output_tolerance"]
        assert differing(head, base) <= {"peak_bytes"}
        assert judged[name].exact == ()
        assert judged[name].verdict is Verdict.NOT_MEASURED  # one process, and no control


def test_one_kernel_more_in_each_pass_is_counted(measured):
    facts, judged = measured("kernel")
    added = {name: facts[name]["head"]["kernels"] - facts[name]["base"]["kernels"] for name in PLAIN}
    assert added[PLAIN[0]] == 16  # 32 pairs by twos
    assert 0 < added[PLAIN[1]] <= 16
    for name in PLAIN:
        head, base = facts[name]["head"], facts[name]["base"]
        assert differing(head, base) - {"peak_bytes"} == {"kernels"}
        assert judged[name].verdict is Verdict.REGRESSED
        assert judged[name].exact == (f"kernels: {base['kernels']} -> {head['kernels']}",)


def test_memory_that_is_held_is_seen(measured):
    facts, judged = measured(f"memory:{BYTES}")
    for name in PLAIN:
        head, base = facts[name]["head"], facts[name]["base"]
        assert differing(head, base) - {"kernels"} == {"peak_bytes"}  # to get memory may take a kernel
        assert head["peak_bytes"] - base["peak_bytes"] == pytest.approx(BYTES, rel=0.01)
        assert judged[name].verdict is Verdict.REGRESSED
        assert [line for line in judged[name].exact if line.startswith("peak memory: ")]


def test_a_function_that_fell_to_eager_is_the_heads(measured):
    facts, judged = measured("eager")
    for name in PLAIN:
        fallen = facts[name]["head"]["eager_fallbacks"]  # one in each of the head's models
        assert facts[name]["base"]["eager_fallbacks"] == 0
        assert fallen > 0
        assert judged[name].verdict is Verdict.REGRESSED
        assert f"eager fallbacks: 0 -> {fallen}, and none is allowed" in judged[name].exact
        assert any("exhausted" in note for note in judged[name].notes)


def test_graphs_that_are_compiled_again_are_the_heads(measured):
    name = "sentence-pairs-bucketed"
    facts, judged = measured("recompile", (name,))
    head, base = facts[name]["head"], facts[name]["base"]
    assert base["recompiles"] == 0
    assert head["recompiles"] > 0
    assert judged[name].verdict is Verdict.REGRESSED
    assert f"recompiles: 0 -> {head['recompiles']}, and none is allowed" in judged[name].exact
    assert judged[name].notes
