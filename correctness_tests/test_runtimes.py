"""Other runtimes than PyTorch: the same scores, exported once, never stale, refused where they cannot be."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import xenc
from correctness_tests import checkpoints, oracle, test_causal
from correctness_tests.comparison import assert_same
from xenc import PRESETS, CompileError, Execution, ExecutionError, ModelError, watch_compiles
from xenc.extras import missing_for
from xenc.forward import classify
from xenc.runtimes import forward
from xenc.runtimes.probe import probe
from xenc.runtimes.runtime import Session

PAIRS = [
    ("How does Python look up names?", "Names are bound by the following constructs."),
    ("", ""),
    ("question", ""),
    ("", "document"),
    *[("where is it", "here it is " * words) for words in (1, 9, 12, 60, 200)],
]
BATCH_SIZE = 4

slow = pytest.mark.slow


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def runtime(request: pytest.FixtureRequest) -> str:
    reason = missing_for(PRESETS[request.param])
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


@pytest.fixture(scope="session")
def users_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True, scope="module")
def _exports_are_kept_for_these_tests_alone(users_cache: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(users_cache))
        yield


@pytest.fixture(scope="module")
def model(one_layer, runtime) -> Iterator[xenc.CrossEncoder]:
    with made(one_layer, PRESETS[runtime]) as model:
        yield model


def made(checkpoint, execution: Execution, **kwargs) -> xenc.CrossEncoder:
    return xenc.CrossEncoder(str(checkpoint), device="cpu", execution=execution, **kwargs)


def bucketed(runtime: str, **changes) -> Execution:
    return Execution(runtime=runtime, layout="bucketed", compile_mode=None, **changes)


def logits(model: xenc.CrossEncoder, pairs=PAIRS, batch_size: int = BATCH_SIZE) -> np.ndarray:
    return model.predict(pairs, batch_size=batch_size, activation_fn=torch.nn.Identity())


def assert_as_oracle(model: xenc.CrossEncoder, checkpoint: Path, pairs=PAIRS) -> None:
    expected = oracle.logits(checkpoint, pairs, max_length=64)
    assert expected.std() > 0.3
    np.testing.assert_allclose(logits(model, pairs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", ["padded", "bucketed"])
def test_scores_are_the_oracles_in_any_order(model, one_layer, runtime, layout):
    model.execution = replace(bucketed(runtime), layout=layout)
    assert_as_oracle(model, one_layer)
    assert_as_oracle(model, one_layer, random.Random(0).sample(PAIRS, len(PAIRS)))


def test_batches_that_follow_do_not_write_over_the_scores(model, one_layer, runtime):
    model.execution = runtime
    alone = logits(model, batch_size=1)
    np.testing.assert_allclose(alone, oracle.logits(one_layer, PAIRS, max_length=64), rtol=0, atol=1e-4)


def test_a_dummy_row_never_changes_a_score(model, runtime):
    model.execution = bucketed(runtime)
    with_dummies = [logits(model, [pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(with_dummies, logits(model), rtol=0, atol=1e-5)


def test_token_types_reach_the_model(tmp_path, model, runtime):
    """Their embedding is learnt, so that other types are other scores."""
    sound = model.pipeline.collator.collate
    model.execution = runtime
    tokens = model.pipeline.tokenize(PAIRS[:1])
    batch = sound(tokens, model.pipeline.plan(tokens, batch_size=1).batches[0])
    assert batch.token_type_ids.any()
    untyped = replace(batch, token_type_ids=torch.zeros_like(batch.token_type_ids))
    with_types, without = model.pipeline.run([batch, untyped])
    assert (with_types - without).abs().max() > 1e-2


def test_every_label_has_its_score(three_labels, runtime):
    with made(three_labels, PRESETS[runtime]) as model:
        assert logits(model).shape == (len(PAIRS), 3)
        assert_as_oracle(model, three_labels)


def test_every_call_answers_as_it_does_under_pytorch(model, runtime, one_layer):
    theirs = made(one_layer, PRESETS["sdpa-sorted"])
    model.execution = runtime
    documents = [document for _, document in PAIRS]
    calls = (
        lambda model: model.predict(PAIRS),
        lambda model: model.predict(PAIRS[0]),
        lambda model: model.predict(PAIRS, convert_to_tensor=True),
        lambda model: model.rank("where", documents, top_k=3),
        lambda model: model.submit(PAIRS).result(),
    )
    for call in calls:
        assert_same(call(model), call(theirs))


def test_scores_from_many_threads_are_the_oracles(model, runtime, one_layer):
    model.execution = bucketed(runtime)
    expected = oracle.logits(one_layer, PAIRS, max_length=64)

    def client(seed: int) -> None:
        rows = random.Random(seed).choices(range(len(PAIRS)), k=5)
        scores = logits(model, [PAIRS[row] for row in rows])
        np.testing.assert_allclose(scores, expected[rows], rtol=0, atol=1e-4)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(24)))


def test_warm_up_opens_a_session_runs_every_bucket_and_leaves_nothing_to_open(one_layer, runtime):
    with made(one_layer, bucketed(runtime, buckets=32, strict=True)) as model:
        first, second = model.warmup(BATCH_SIZE), model.warmup(BATCH_SIZE)
        assert first.shapes == second.shapes == ((BATCH_SIZE, 64), (BATCH_SIZE, 32))
        assert (first.graphs, second.graphs, model.pipeline.compiled.graphs) == (1, 0, 1)
        session = model.pipeline.compiled
        with watch_compiles() as watch:
            logits(model)
        assert watch.report.clean, watch.report.describe()
        model.execution = replace(model.execution, sort=False, layout="padded", buckets=16)
        assert model.pipeline.compiled is session
        logits(model)


def through_data(transformer: torch.nn.Module) -> None:
    transformer.classifier.weight.data = transformer.classifier.weight.data * 4


def in_place(transformer: torch.nn.Module) -> None:
    with torch.no_grad():
        transformer.classifier.weight.mul_(-2)


def expect_follows(model: xenc.CrossEncoder, runtime: str) -> None:
    ours = logits(model)
    model.execution = "sdpa-sorted"
    np.testing.assert_allclose(ours, logits(model), rtol=1e-5, atol=1e-4)
    model.execution = runtime


def test_a_changed_weight_is_exported_anew_and_said(one_layer, runtime, caplog):
    with made(one_layer, PRESETS[runtime]) as model:
        model.warmup(BATCH_SIZE)
        before = logits(model)
        in_place(model.transformers_model)
        caplog.clear()
        assert np.abs(logits(model) - before).max() > 1e-2
        assert caplog.text.count("the model changed, after warm-up. Call model.warmup()") == 1
        expect_follows(model, runtime)


def test_a_weight_written_through_data_is_noticed_by_the_next_warm_up(one_layer, runtime):
    with made(one_layer, PRESETS[runtime]) as model:
        model.warmup(BATCH_SIZE)
        through_data(model.transformers_model)
        assert model.warmup(BATCH_SIZE).graphs == 1
        expect_follows(model, runtime)


def test_a_changed_setting_is_exported_anew(one_layer, runtime):
    with made(one_layer, PRESETS[runtime]) as model:
        before = logits(model)
        for module in model.transformers_model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1.0
        assert np.abs(logits(model) - before).max() > 1e-2
        expect_follows(model, runtime)


def test_forward_hooks_are_refused_by_name(one_layer, runtime):
    with made(one_layer, PRESETS[runtime]) as model:
        model.transformers_model.classifier.register_forward_hook(lambda *_: None)
        with pytest.raises(ModelError, match=r"has forward hooks.*runtime='torch'"):
            logits(model)


def test_in_strict_mode_a_changed_weight_is_an_error_that_says_so(one_layer, runtime):
    with made(one_layer, replace(PRESETS[runtime], strict=True)) as model:
        model.warmup(BATCH_SIZE)
        in_place(model.transformers_model)
        with pytest.raises(CompileError, match="the model changed"):
            logits(model)


@pytest.fixture
def opened(monkeypatch, runtime) -> list[int]:
    """CPU threads of the sessions opened meanwhile."""
    threads: list[int] = []
    kind = type(forward.RUNTIMES[runtime])
    open_ = kind.open

    def recorded(self, file, device, dtype, count) -> Session:
        threads.append(count)
        return open_(self, file, device, dtype, count)

    monkeypatch.setattr(kind, "open", recorded)
    return threads


def test_a_session_has_its_callers_threads_and_another_number_of_them_is_said(
    one_layer, runtime, opened, caplog
):
    before = torch.get_num_threads()
    with made(one_layer, PRESETS[runtime]) as model:
        try:
            torch.set_num_threads(1)
            model.warmup(BATCH_SIZE)
            logits(model)
            torch.set_num_threads(2)
            assert "CPU threads" not in caplog.text
            assert_as_oracle(model, one_layer)
            torch.set_num_threads(1)
            logits(model)
        finally:
            torch.set_num_threads(before)
    assert opened == [1, 2]
    assert "the caller has 2 CPU threads, after warm-up" in caplog.text


def test_another_runtime_and_a_copy_of_the_checkpoint_use_what_was_exported(
    one_layer, runtime, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.onnx, "export", None)
    copy = shutil.copytree(one_layer, tmp_path / "copy")
    with made(copy, PRESETS[runtime]) as model:
        assert_as_oracle(model, one_layer)


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Each made once, so that the second runtime finds what was exported for the first."""
    return cache(lambda name, **changes: checkpoints.make(tmp_path_factory.mktemp(name), name, **changes))


@pytest.mark.parametrize(
    "architecture",
    ["roberta", *(pytest.param(name, marks=slow) for name in checkpoints.ARCHITECTURES if name != "roberta")],
)
def test_every_architecture_that_can_be_exported_scores_as_the_oracle(architecture, runtime, checkpoint_of):
    checkpoint = checkpoint_of(architecture)
    with made(checkpoint, PRESETS[runtime]) as model:
        assert_as_oracle(model, checkpoint)


class Undecided(torch.nn.Linear):
    """Which of two functions it is depends on the texts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


def test_a_model_that_cannot_be_exported_is_refused_by_name_in_one_line(one_layer, monkeypatch):
    tried = []
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: tried.append(1) or export(*a, **k))
    with made(one_layer, PRESETS["onnxruntime"]) as model:
        head = Undecided(model.transformers_model.classifier.in_features, 1)
        model.transformers_model.classifier = head
        for _ in range(2):
            with pytest.raises(ModelError, match=r"^BertFor\S+ cannot be exported .*runtime='torch'\.$"):
                logits(model)
    assert len(tried) == 1


def test_an_export_that_answers_otherwise_is_refused(one_layer):
    model = made(one_layer, PRESETS["sdpa-sorted"]).transformers_model
    probe(model, lambda batch: classify(model, *batch.arguments), token_types=True)
    for wrong in (lambda logits: logits + 0.01, lambda logits: logits * torch.nan):
        with pytest.raises(ModelError, match=r"BertFor.* answers otherwise .*runtime='torch'"):
            probe(model, lambda batch, w=wrong: w(classify(model, *batch.arguments)), token_types=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_dtype_that_would_be_emulated_is_refused_with_the_remedy(one_layer, runtime, dtype, monkeypatch):
    if runtime == "openvino":
        openvino = pytest.importorskip("openvino")
        monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    with pytest.raises(ExecutionError, match=rf"{runtime}.*{dtype}.*torch\.float32.*runtime='torch'"):
        made(one_layer, PRESETS[runtime], model_kwargs={"dtype": dtype})


def test_a_dtype_that_the_processor_has_is_not_refused_by_openvino(monkeypatch):
    openvino = pytest.importorskip("openvino", reason="not installed: pip install 'xenc[openvino]'")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    forward.RUNTIMES["openvino"].check(torch.device("cpu"), torch.bfloat16)


def test_a_device_that_the_runtime_has_not_is_refused_with_those_there_are(runtime):
    with pytest.raises(ExecutionError, match=rf"{runtime}.*cuda:0.*(CPUExecutionProvider|processors).*'cpu'"):
        forward.RUNTIMES[runtime].check(torch.device("cuda:0"), torch.float32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtime": "onnx"}, "runtime='onnx' is not one of 'torch', 'onnxruntime', 'openvino', 'tensorrt'"),
        ({"runtime": "onnxruntime"}, r"runtime='onnxruntime' with layout='packed'.*layout='bucketed'"),
        ({"runtime": "tensorrt"}, r"runtime='tensorrt' with layout='packed'.*runtime='torch'"),
        (
            {"runtime": "openvino", "layout": "bucketed"},
            r"runtime='openvino' with compile_mode='default'.*compile_mode=None",
        ),
        (
            {"runtime": "tensorrt", "layout": "bucketed", "compile_mode": "max-autotune"},
            r"runtime='tensorrt' with compile_mode='max-autotune'.*compile_mode='default'",
        ),
        (
            {"runtime": "tensorrt", "layout": "bucketed", "compile_mode": None},
            r"runtime='tensorrt' with compile_mode=None",
        ),
        (
            {"runtime": "tensorrt", "layout": "bucketed", "freeze": True},
            r"runtime='tensorrt' with freeze=True",
        ),
    ],
)
def test_contradictions_name_both_choices_and_the_remedy(settings, message):
    with pytest.raises(ExecutionError, match=message):
        Execution(**settings)


def test_a_causal_reranker_is_refused(tmp_path, runtime):
    with pytest.raises(ExecutionError, match=rf"runtime='{runtime}': a causal reranker runs packed"):
        made(test_causal.make(tmp_path), PRESETS[runtime])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tensorrt"])
def test_an_absent_package_is_an_error_with_the_hint_as_soon_as_it_is_chosen(one_layer, name, monkeypatch):
    monkeypatch.setattr("xenc.extras.find_spec", lambda module: None)
    hint = rf"pip install 'xenc\[{name}\]'"
    with pytest.raises(xenc.NotInstalledError, match=rf"runtime='{name}' needs .*{hint}"):
        made(one_layer, PRESETS[name])
    model = made(one_layer, PRESETS["sdpa-sorted"])
    with pytest.raises(xenc.NotInstalledError, match=hint):
        model.execution = name
    assert model.execution == PRESETS["sdpa-sorted"]
    assert missing_for(PRESETS[name]) == f"not installed: pip install 'xenc[{name}]'"


def test_what_pytorch_runs_misses_nothing():
    for execution in PRESETS.values():
        assert execution.runtime != "torch" or missing_for(execution) is None


@slow
def test_openvino_reads_a_model_in_bfloat16(one_layer, monkeypatch):
    """On a processor without instructions for it, which is told here that it has them, and then emulates."""
    openvino = pytest.importorskip("openvino", reason="not installed: pip install 'xenc[openvino]'")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    exact = oracle.logits(one_layer, PAIRS, max_length=64)
    eager = oracle.logits(one_layer, PAIRS, max_length=64, dtype=torch.bfloat16)
    with made(one_layer, PRESETS["openvino"], model_kwargs={"dtype": torch.bfloat16}) as model:
        error = np.abs(logits(model) - exact).max()
    step = torch.finfo(torch.bfloat16).eps * np.abs(exact).max()
    assert error <= 2 * np.abs(eager - exact).max() + step


@pytest.mark.parametrize("layout", ["padded", "bucketed"])
def test_rows_with_any_number_of_eos_share_a_batch(runtime, layout, checkpoint_of):
    """Transformers' own lookup, exported, would read another pair's <eos>."""
    checkpoint = checkpoint_of("t5", **checkpoints.T5)
    pairs = [*PAIRS, ("one [SEP] more", "and [SEP] another [SEP]")]
    with made(checkpoint, replace(bucketed(runtime), layout=layout)) as model:
        assert model.tokenizer.sep_token_id == model.transformers_model.config.eos_token_id
        assert (model.execution.layout, model.execution.runtime) == (layout, runtime)
        assert_as_oracle(model, checkpoint, pairs)


def test_a_classifier_that_looks_up_eos_as_it_runs_is_refused(runtime, tmp_path):
    checkpoint = checkpoints.make(tmp_path, "mbart", **checkpoints.BART)
    for layout in ("padded", "bucketed"):
        with pytest.raises(ExecutionError, match=rf"{runtime}.*MBart\S+ looks up <eos>.*runtime='torch'"):
            made(checkpoint, replace(bucketed(runtime), layout=layout))
