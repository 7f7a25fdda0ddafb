"""A model that is changed, copied, saved and moved between processes scores as it should."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import shutil
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

import xenc
from correctness_tests.comparison import assert_same
from correctness_tests.scoring import on_cpu
from perf_tests import workloads
from xenc import PRESETS
from xenc.serving.worker import ANSWERERS

PAIRS = [(query[:70], document[:90]) for query, document in workloads.seed(pairs=9, batch_size=8).round(2)]


def test_training_mode_does_not_leak_into_scores_and_only_scoring_leaves_it(tiny, plain):
    model = on_cpu(tiny)
    model.train()
    assert_same(model.predict(PAIRS), plain.predict(PAIRS))
    model.train()
    model.execution = "packed-eager"
    assert model.pipeline.execution == PRESETS["packed-eager"]
    assert model.training


def test_activations_run_on_the_callers_thread_and_may_ask_for_scores_as_deep_as_they_like(tiny):
    model, threads = on_cpu(tiny), set()

    def activation(depth):
        def run(logits):
            threads.add(threading.current_thread())
            return logits if not depth else logits + float(model.predict(PAIRS[0], activation_fn=run_next))

        run_next = activation(depth - 1) if depth else None
        return run

    model.predict(PAIRS[0], activation_fn=activation(0))
    assert threads == {threading.current_thread()}  # or the next line would wait for ever
    assert np.isfinite(model.predict(PAIRS[0], activation_fn=activation(ANSWERERS + 3)))
    assert threads == {threading.current_thread()}


def test_a_model_is_judged_on_the_device_that_a_call_moves_it_to(tiny, monkeypatch):
    model, moved = on_cpu(tiny, "packed"), []
    monkeypatch.setattr(type(model), "to", lambda self, device: moved.append(device) or self)
    monkeypatch.setattr("xenc.layouts.choice.missing_compiler", lambda: None if moved else "no compiler")
    with suppress(xenc.CompileError):
        model.predict(PAIRS, device="cpu")
    assert (moved, model.execution) == (["cpu"], PRESETS["packed"])


def test_config_kwargs_may_name_what_the_loader_names_too(tiny, plain):
    options = {"revision": "main", "local_files_only": True, "trust_remote_code": False}
    assert_same(on_cpu(tiny, config_kwargs=options).predict(PAIRS), plain.predict(PAIRS))


def test_the_slow_path_is_logged_once_at_info(tiny, caplog):
    model = on_cpu(tiny)
    with caplog.at_level(logging.INFO, logger="xenc"):
        for _ in range(2):
            model.predict(PAIRS, processing_kwargs={"text": {"max_length": 9}})
    said = [record for record in caplog.records if "sentence-transformers' own predict" in record.message]
    assert [record.levelno for record in said] == [logging.INFO]
    assert said[0].message.startswith("processing arguments")
    assert model.last_report is None


def test_a_process_pool_scores_the_same(tiny, plain):
    model = on_cpu(tiny)
    assert_same(model.predict(PAIRS, device=["cpu", "cpu"], chunk_size=5), plain.predict(PAIRS))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_scores_the_same(warm, plain, duplicate):
    twin = duplicate(warm)
    assert twin.execution == warm.execution
    assert warm.pipeline.compiled.graphs == 1
    twin.execution = "sdpa-sorted"
    assert_same(twin.predict(PAIRS), plain.predict(PAIRS))


def test_a_saved_model_loads_in_both_libraries(eager, plain, tmp_path):
    eager.save_pretrained(str(tmp_path))
    ours = on_cpu(tmp_path)
    for model in (ours, CrossEncoder(str(tmp_path), device="cpu")):
        assert_same(model.predict(PAIRS), plain.predict(PAIRS))


def test_an_execution_keeps_the_graphs_that_fit_it(tiny):
    model = on_cpu(tiny, "bucketed")
    graphs = model.pipeline.compiled
    for kept in (replace(PRESETS["bucketed"], sort=False), replace(PRESETS["bucketed"], buckets=32)):
        model.execution = kept
        assert model.pipeline.compiled is graphs
        assert model.pipeline.execution == kept
    model.execution = replace(PRESETS["bucketed"], attention="eager")
    assert model.pipeline.compiled is not graphs
    model.execution = "sdpa-sorted"
    assert model.pipeline.compiled is None


def test_code_that_comes_with_a_checkpoint_does_not_run_unasked(tiny, tmp_path):
    checkpoint = shutil.copytree(tiny, tmp_path / "remote")
    (checkpoint / "remote.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise RuntimeError\n")
    config = json.loads((checkpoint / "config.json").read_text())
    remote = {"AutoConfig": "remote.Config", "AutoModelForSequenceClassification": "remote.Model"}
    (checkpoint / "config.json").write_text(json.dumps({**config, "auto_map": remote}))
    with suppress(xenc.ModelError):  # to refuse is as good as to ignore
        on_cpu(checkpoint)
    assert not (tmp_path / "ran").exists()


def saved(model, folder) -> dict[str, bytes]:
    model.save_pretrained(str(folder), create_model_card=False)
    return {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("execution", ["sdpa-sorted", "packed-eager"])
def test_a_saved_model_has_the_files_of_sentence_transformers_before_and_after_scoring(
    tiny, tmp_path, execution
):
    """The tokenizer's truncation and padding too, and the attention that the model was loaded with."""
    ours, theirs = on_cpu(tiny, execution), CrossEncoder(str(tiny), device="cpu")
    for when, score in {"before": lambda _: None, "after": lambda model: model.predict(PAIRS)}.items():
        for model in (ours, theirs):
            score(model)
        before = saved(theirs, tmp_path / "theirs" / when)
        assert saved(ours, tmp_path / "ours" / when) == before
        assert ours.tokenizer.backend_tokenizer.to_str() == theirs.tokenizer.backend_tokenizer.to_str()
