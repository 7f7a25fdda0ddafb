"""Measuring processes: what they must not take for granted, and real ones, in which a fault shows."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from perf_tests import models
from perf_tests.against import PAIRED, REPOSITORY, node_of, paired_request
from perf_tests.hopper.waiting_process import WaitingProcess
from perf_tests.ready_models import share_weights
from perf_tests.scored import facts_of, with_texts_tokenized
from xenc import CrossEncoder
from xenc.gate.paired.campaign import Campaign
from xenc.gate.paired.revision import snapshot
from xenc.gate.paired.rule import change_in_process
from xenc.gate.paired.session import measure_process, process_request
from xenc.gate.paired.verdicts import judge_campaign
from xenc.gate.verdict import Verdict

CONFIGURATION = PAIRED["cpu"][0]


def linear(dtype=torch.float32, features=3):
    torch.manual_seed(0)
    return torch.nn.Linear(features, 2).to(dtype)


def changed(model):
    with torch.no_grad():
        model.weight[0, 0] += 1e-3
    return model


def transposed(model):
    model.weight.data = model.weight.data.t().contiguous().t()
    return model


@pytest.mark.parametrize(
    ("ours", "shared"),
    [
        (linear(), True), (linear(torch.bfloat16), False), (linear(features=4), False),
        (changed(linear()), False), (transposed(linear()), False),
    ],
    ids=["equal", "dtype", "shape", "value", "layout"],
)  # fmt: skip
def test_equal_weights_are_shared_and_weights_that_differ_stay_as_they_are(ours, shared):
    theirs, before = linear(), ours.weight.detach().clone()
    assert share_weights(ours, theirs) is shared
    assert (ours.weight.data_ptr() == theirs.weight.data_ptr()) is shared
    assert torch.equal(ours.weight, before)
    assert ours.weight.dtype == before.dtype


def ready(*, compile_mode=None, graphs=None):
    model = Mock()
    model.pipeline.compiled = None if graphs is None else Mock(graphs=graphs)
    model.execution.compile_mode = compile_mode
    return Mock(model=model, device="cpu")


def graphs_of(model):
    return facts_of(model, lambda pairs: None, [], CONFIGURATION.workload, explains=False)["graphs"]


def test_graphs_are_counted_and_only_a_compiled_execution_needs_one():
    assert graphs_of(ready(compile_mode="default", graphs=2)) == 2
    assert graphs_of(ready()) == 0
    for graphs in (0, None):
        with pytest.raises(RuntimeError, match="no graph: is Dynamo disabled"):
            graphs_of(ready(compile_mode="default", graphs=graphs))


def test_texts_are_counted_where_they_are_encoded_and_the_tokenizer_is_then_as_before():
    model = CrossEncoder(str(models.tiny_bert()), device="cpu", execution="packed-eager")
    backend = model.tokenizer.backend_tokenizer
    pairs = [("one", "two"), ("one", "three"), ("one", "two")]
    scores = model.predict(pairs)  # the first time a tokenizer's settings are set, by encoding a pair
    for job, texts in (
        (lambda: model.predict(pairs), 3),
        (lambda: model.tokenizer(["one", "two"], ["three", "four"]), 4),
        (lambda: [model.tokenizer(text) for text in ("one", "one")], 2),
        (lambda: [backend.encode("one"), backend.encode("one", "two")], 3),
        (lambda: None, None),
    ):
        answer, found = with_texts_tokenized(model, job)
        assert found == texts
        assert type(answer) is type(job())
    assert np.array_equal(with_texts_tokenized(model, lambda: model.predict(pairs))[0], scores)
    assert not vars(backend)
    assert with_texts_tokenized(Mock(spec=["predict"]), lambda: 1) == (1, None)


PLAIN = ("sentence-pairs-sdpa-sorted", "sentence-pairs-packed-eager")
"""Configurations that start fast, for they compile nothing."""

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
    """Runs one process; by configuration, facts of head and base, those that differ, and the judgement."""

    def run(fault, names=PLAIN):
        request = paired_request("cpu", names=names)
        faults = () if fault is None else ("--fault", fault)
        *command, process = request.command
        monkeypatch.chdir(REPOSITORY)
        with Campaign((*command, *faults, process), timeout_s=600, lock=None) as campaign:
            result = measure_process(campaign, request, *revisions, number=0)
        judged = judge_campaign([result], request.rules).configurations
        for name in names:
            found = result["configurations"][node_of("cpu", name)]
            head, base = (found["facts"][side] for side in ("head", "base"))
            assert set(head) == set(base)
            assert not [kernel for kernel in found["kernels"]["head"] if "xenc_head" in kernel]
            differing = {fact for fact in base if head[fact] != base[fact]}
            yield name, head, base, differing, judged[node_of("cpu", name)]

    return run


@pytest.mark.slow
def test_without_a_fault_the_facts_are_the_same(measured):
    for _, _, base, differing, judgement in measured(None):
        assert base["kernels"] > 100
        assert base["peak_bytes"] > 0
        assert base["output_error"] <= base["output_tolerance"]
        assert differing <= {"peak_bytes"}
        assert judgement.exact == ()
        assert judgement.verdict is Verdict.NOT_MEASURED  # one process, and no control


@pytest.mark.slow
def test_a_warm_process_measures_in_turns_and_a_slowness_ends_with_its_turn(revisions, tmp_path):
    request = paired_request("cpu", names=PLAIN[1:])
    (name,) = request.rules
    turns = [{"head_slower": 0.5}, {"head_slower": 0.0}]
    asked = process_request(request, *revisions, number=1) | {"turns": turns}
    process = WaitingProcess("it", request.command, asked, tmp_path / "process", os.environ)
    try:
        while not process.ready:
            process.check()
            time.sleep(0.1)
        results = [process.turn(number, 300) for number in range(len(turns))]
    finally:
        process.close()
    slowed, unchanged = [
        change_in_process(result["configurations"][name]["blocks"], "device_s") for result in results
    ]
    assert slowed > 0.25
    assert abs(unchanged) < 0.1
    for result in results:
        (control, *_) = judge_campaign([result] * 2, request.rules).controls
        assert control.configuration == name
        assert result["machine"]["weights"] == "shared"


@pytest.mark.slow
def test_one_kernel_more_in_each_pass_is_counted(measured):
    for name, head, base, differing, judgement in measured("kernel"):
        added = head["kernels"] - base["kernels"]
        assert added == 16 if name == PLAIN[0] else 0 < added <= 16  # 32 pairs by twos
        assert differing - {"peak_bytes"} == {"kernels"}
        assert judgement.verdict is Verdict.REGRESSED
        assert judgement.exact == (f"kernels: {base['kernels']} -> {head['kernels']}",)


@pytest.mark.slow
def test_memory_that_is_held_is_seen(measured):
    for _, head, base, differing, judgement in measured(f"memory:{BYTES}"):
        assert differing - {"kernels"} == {"peak_bytes"}  # allocating may take a kernel
        assert head["peak_bytes"] - base["peak_bytes"] == pytest.approx(BYTES, rel=0.01)
        assert judgement.verdict is Verdict.REGRESSED
        assert [line for line in judgement.exact if line.startswith("peak memory: ")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "names", "fact", "note"),
    [
        ("eager", PLAIN, "eager_fallbacks", "exhausted"),
        ("recompile", ("sentence-pairs-bucketed",), "recompiles", ""),
    ],
)
def test_graphs_that_fall_to_eager_or_compile_again_are_the_heads(measured, fault, names, fact, note):
    for _, head, base, _, judgement in measured(fault, names):
        assert base[fact] == 0
        assert head[fact] > 0
        assert judgement.verdict is Verdict.REGRESSED
        line = f"{fact.replace('_', ' ')}: 0 -> {head[fact]}, and none is allowed"
        assert line in judgement.exact
        assert any(note in each for each in judgement.findings)
