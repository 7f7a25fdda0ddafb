"""ModernBERT rerankers side by side: two forms of one model, ratios, and failures that stay contained."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import sentence_transformers
import torch

from correctness_tests import oracle
from perf_tests.ettin_models import GEOMETRIES, REHEARSED, stored
from perf_tests.hopper import modular, modular_contestants
from perf_tests.hopper.modular import modular_rows, modular_table
from perf_tests.hopper.modular_contestants import FLAT, OURS, PADDED, WORK
from perf_tests.peers.peer import predicted

SETTING = SimpleNamespace(device="cpu", dtype=torch.float32)
[SMALL] = REHEARSED
CLASSIFIER = replace(SMALL, name="modernbert-l2-mean", pooling="mean", chain=False)
BROKEN = replace(SMALL, name="broken", heads=7)


@pytest.fixture(scope="module")
def rows():
    return modular_rows(SETTING, (BROKEN, SMALL, CLASSIFIER), lambda: True, lambda line: None)


def test_a_chain_of_modules_scores_as_the_classifier_with_its_weights():
    checkpoints, pairs = stored(SMALL), WORK["cpu"].round()
    chain = sentence_transformers.CrossEncoder(
        str(checkpoints.published), device="cpu", max_length=512, model_kwargs={"dtype": torch.float32}
    )
    assert [type(module).__name__ for module in chain] == [
        "Transformer", "Pooling", "Dense", "LayerNorm", "Dense",
    ]  # fmt: skip
    exact = oracle.logits(checkpoints.classifier, pairs, max_length=512)
    assert exact.std() > 0.3
    np.testing.assert_allclose(predicted(chain, pairs, 4), exact, atol=1e-5)


def test_a_geometry_that_fails_costs_no_other_row(rows):
    broken, *others = rows
    assert broken["problem"].startswith("ValueError")
    assert "contestants" not in broken
    assert [each["problem"] for each in others] == [None, None]


def test_contestants_answer_rightly_and_ratios_are_of_the_same_rounds(rows):
    for row in rows[1:]:
        contestants = row["contestants"]
        padded = [name for name in contestants if name.startswith(PADDED)]
        assert [contestants[name]["stands"] for name in (OURS, *padded)] == [True] * 3
        assert row["best_sdpa"] == max(padded, key=lambda name: contestants[name]["pairs_per_s"])
        ours, best = (contestants[name]["seconds"] for name in (OURS, row["best_sdpa"]))
        assert len(ours) == row["n"] == modular.ROUNDS
        assert row["over_sdpa"] == pytest.approx(np.median(np.divide(best, ours)))
        assert 0 < contestants[padded[-1]]["padding"] < 1
        assert contestants[OURS]["padding"] < 1


def test_what_does_not_load_says_why_and_has_no_ratio(rows):
    for row in rows[1:]:
        assert "FlashAttention" in row["contestants"][FLAT]["problem"]
        assert row["over_flattened"] is None


def test_problems_stand_below_the_table(rows):
    assert "- broken: ValueError" in modular_table(rows)


def test_a_wrong_answer_has_no_ratio(monkeypatch):
    sound = modular_contestants.output_error
    monkeypatch.setattr(
        modular_contestants, "output_error", lambda logits, *args, **more: sound(logits + 1, *args, **more)
    )
    [row] = modular_rows(SETTING, (CLASSIFIER,), lambda: True, lambda line: None)
    assert (row["best_sdpa"], row["over_sdpa"]) == (None, None)
    assert "WRONG" in modular_table([row])


def test_without_time_nothing_is_loaded(monkeypatch):
    monkeypatch.setattr(modular, "stored", None)
    rows = modular_rows(SETTING, GEOMETRIES, lambda: False, lambda line: None)
    assert {row["problem"] for row in rows} == {"no time was left"}
    assert "7,517" in modular_table(rows)
