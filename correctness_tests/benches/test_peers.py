"""Peers score the same model; rows whose packages are absent say so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from correctness_tests import oracle
from perf_tests import peers, test_predict, test_side_by_side, workloads
from perf_tests.configurations import Configuration, configurations
from perf_tests.conftest import NOT_JUDGED, lacks
from perf_tests.peers.onnxruntime import onnxruntime
from perf_tests.peers.openvino import openvino
from perf_tests.scorers import Scorers
from perf_tests.techniques import Technique, techniques
from xenc import PRESETS, watch_compiles

SENTENCE = "A class body is run in a namespace of its own. "
PAIRS = [
    (SENTENCE * 2, SENTENCE * 9),
    (SENTENCE * 40, SENTENCE * 41),  # some 900 tokens, more than the model seats
    *workloads.seed(pairs=6, batch_size=4).round(1),
    ("a", "b"),
]
BATCH_SIZE = 4


@pytest.mark.slow
def test_the_compiled_peer_scores_as_the_oracle_and_compiles_nothing_once_it_is_made(minilm):
    peer = peers.make("sentence-transformers-compiled", minilm, "cpu", torch.float32, BATCH_SIZE)
    expected = oracle.logits(minilm, PAIRS, max_length=peers.MAX_LENGTH)
    np.testing.assert_allclose(peer.logits(PAIRS), expected, rtol=0, atol=1e-4)
    with watch_compiles() as watch:
        for count in range(1, BATCH_SIZE + 2):  # short last batches, and one pair left over
            peer.logits(PAIRS[:count])
    assert watch.report.clean, watch.report.describe()


ELSEWHERE = {
    "openvino": lambda: openvino(Path("nowhere"), torch.float32, 1, BATCH_SIZE),
    "onnxruntime": lambda: onnxruntime(Path("nowhere"), 1, BATCH_SIZE),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_peer_whose_package_is_absent_says_so(name, monkeypatch):
    monkeypatch.setattr("perf_tests.peers.peer.find_spec", lambda module: None)
    with pytest.raises(peers.Absent, match=rf"not installed: .*{name}"):
        ELSEWHERE[name]()


def test_a_row_whose_packages_are_absent_names_the_remedy_and_times_nothing(monkeypatch):
    monkeypatch.setattr("xenc.models.quantize.find_spec", lambda module: None)
    row = Configuration(name="packed-float8", device="cpu", workload=workloads.seed(pairs=3, batch_size=3))
    benchmark = SimpleNamespace(extra_info={})
    test_predict.test_predict(benchmark, row, Scorers(), profile=None)
    assert benchmark.extra_info["configuration"] == "packed-float8"
    assert benchmark.extra_info["not_measured"] == "not installed: pip install 'xenc[torchao]'"


def test_the_gate_asks_nothing_of_rows_whose_packages_are_absent(monkeypatch):
    monkeypatch.setattr("xenc.models.quantize.find_spec", lambda module: None)
    for parameter in (*configurations(), *techniques()):
        row = parameter.values[0]
        execution = row.execution if isinstance(row, Technique) else PRESETS[row.name]
        needy = execution.quantize is not None
        assert lacks(SimpleNamespace(callspec=SimpleNamespace(params={"row": row}))) == needy
    assert not lacks(SimpleNamespace())


def test_what_another_system_runs_is_not_judged_by_the_gate():
    assert "side_by_side" in NOT_JUDGED
    assert "side_by_side" in {mark.name for mark in test_side_by_side.test_in_turns.pytestmark}
