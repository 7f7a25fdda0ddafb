"""The systems that xenc is measured against: they score the same model, and say so when they cannot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from correctness_tests import oracle
from perf_tests import peers, workloads
from xenc import watch_compiles

SENTENCE = "A class body is run in a namespace of its own. "
PAIRS = [
    (SENTENCE * 2, SENTENCE * 9),
    ("Names?", "A name is looked up in the nearest enclosing scope."),
    (SENTENCE * 40, SENTENCE * 41),  # some 900 tokens, more than the model seats
    *workloads.seed(pairs=6, batch_size=4).round(1),
    ("a", "b"),
]
BATCH_SIZE = 4

slow = pytest.mark.slow
NAMES = ["sentence-transformers", *(pytest.param(name, marks=slow) for name in list(peers.FACTORIES)[1:])]


@pytest.fixture(scope="module")
def expected(minilm: Path) -> np.ndarray:
    return oracle.logits(minilm, PAIRS, max_length=peers.MAX_LENGTH)


def make(name: str, checkpoint: Path) -> peers.Peer:
    reason = peers.missing(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return peers.make(name, checkpoint, "cpu", torch.float32, BATCH_SIZE)


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_scores_as_the_oracle_in_the_callers_order(name, minilm, expected):
    logits = make(name, minilm).logits(PAIRS)
    assert (logits.shape, logits.dtype) == ((len(PAIRS),), np.float32)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@slow
def test_nothing_compiles_in_the_compiled_peer_once_it_is_made(minilm):
    peer = make("sentence-transformers-compiled", minilm)
    with watch_compiles() as watch:
        for count in range(1, BATCH_SIZE + 2):  # short last batches, and one pair left over
            peer.logits(PAIRS[:count])
    assert watch.report.clean, watch.report.describe()


@slow
def test_the_export_is_made_once(minilm):
    make("onnxruntime", minilm)
    exported = peers.export(minilm)
    before = exported.stat().st_mtime_ns
    make("onnxruntime", minilm)
    assert peers.export(minilm).stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, minilm, name):
    present = importlib.util.find_spec
    monkeypatch.setattr(peers, "find_spec", lambda module: None if module == name else present(module))
    assert peers.missing(name) == "not installed: pip install 'xenc[peers]'"
    with pytest.raises(ValueError, match=rf"{name}: not installed: pip install 'xenc\[peers\]'"):
        peers.make(name, minilm, "cpu", torch.float32, BATCH_SIZE)


@pytest.mark.parametrize("name", ["sentence-transformers", "sentence-transformers-compiled"])
def test_peers_that_xenc_itself_requires_are_never_missing(name):
    assert peers.missing(name) is None


def test_openvino_does_not_pass_float32_off_as_bfloat16(monkeypatch):
    openvino = pytest.importorskip("openvino", reason="not installed: pip install 'xenc[peers]'")
    for capabilities, answer in (
        (["FP32"], "this CPU has no bfloat16: OpenVINO would compute in float32"),
        (["FP32", "BF16"], None),
    ):
        monkeypatch.setattr(openvino.Core, "get_property", lambda *_, c=capabilities: c)
        assert peers.unsupported("openvino", "cpu", torch.bfloat16) == answer


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("onnxruntime", "cuda", torch.float32),
        ("openvino", "cuda", torch.bfloat16),
        ("onnxruntime", "cpu", torch.bfloat16),
        ("openvino", "cpu", torch.float16),
    ],
)
def test_what_a_peer_is_not_measured_in_is_refused(name, device, dtype):
    assert "is measured" in peers.unsupported(name, device, dtype)
