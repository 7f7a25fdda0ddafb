"""Matrix products in eight bits by torchao: as right as its own, and the model itself stays as it was."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim.optimizer import _global_optimizer_post_hooks

import xenc
from correctness_tests import checkpoints, model_changes, oracle
from correctness_tests.kernels.test_twin import PAIRS, logits
from correctness_tests.scoring import assert_close, nothing_compiles, on_cpu
from xenc import Execution, ExecutionError, NotInstalledError
from xenc.kernels.library import Library
from xenc.models.quantize import TorchaoTwin, _warn_slow, check_device, encoder_layers

quantization = pytest.importorskip(
    "torchao.quantization", reason="not installed: pip install 'xenc[torchao]'"
)

TORCHAO = {"quantize": "int8", "products": "torch"}
"""Where there are int8 products of our own too; for those see kernels/test_eight_bits.py."""

EAGER = Execution(**TORCHAO, compile_mode=None)
COMPILED = Execution(**TORCHAO, token_budgets=(64, 128), strict=True)
PLAIN = Execution(products="torch", compile_mode=None)

INT8_STEP = 1 / 127


made = partial(on_cpu, execution=EAGER)


@pytest.fixture
def eager(one_layer):
    return made(one_layer)


@pytest.fixture(scope="module")
def compiled(one_layer):
    model = made(one_layer, execution=COMPILED)
    assert model.warmup().graphs == 1
    return model


def root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def assert_right(scores: np.ndarray, checkpoint) -> None:
    """Within twice what torchao's model, eager and one pair at a time, is off, plus a step of the largest.

    Nearer than that to torchao's own scores nobody can be: every row's largest activation lies just between
    two steps, so the last bit of a float decides, and what it decides is rounded again in the next layer.
    But on the whole the two must differ by less than torchao's differ from float32.
    """
    exact = oracle.logits(checkpoint, PAIRS, max_length=64)
    theirs = oracle.logits(checkpoint, PAIRS, max_length=64, quantize="int8")
    step = INT8_STEP * np.abs(exact).max()
    assert 1e-3 < np.abs(theirs - exact).max() < 0.5
    assert np.abs(scores - exact).max() <= 2 * np.abs(theirs - exact).max() + step
    assert root_mean_square(scores - theirs) <= root_mean_square(theirs - exact)


@pytest.mark.parametrize("layout", ["packed", "padded", "bucketed"])
def test_scores_are_those_of_torchaos_own_model(one_layer, layout):
    assert_right(logits(made(one_layer, execution=replace(EAGER, layout=layout))), one_layer)


def test_compiled_scores_are_right_in_one_graph_and_nothing_compiles_after_warm_up(compiled, one_layer):
    with nothing_compiles():
        scores = logits(compiled)
    assert compiled.pipeline.compiled.graphs == 1
    assert_right(scores, one_layer)


@pytest.mark.slow
def test_bucketed_batches_are_one_graph_too(one_layer):
    model = made(one_layer, execution=Execution(layout="bucketed", **TORCHAO, strict=True))
    assert model.warmup(batch_size=4).graphs == 1
    with nothing_compiles():
        scores = logits(model)
    assert_right(scores, one_layer)


@pytest.mark.parametrize("architecture", ["distilbert", "modernbert", "xlm-roberta", "qwen3", "deberta-v2"])
def test_every_kind_of_encoder_has_layers_to_quantise(tmp_path, architecture):
    checkpoint = checkpoints.make(tmp_path, architecture)
    model = made(checkpoint)
    assert len(encoder_layers(model.transformers_model)) >= 4
    assert_right(logits(model), checkpoint)


def test_a_quantised_layer_multiplies_as_torchaos_to_the_last_bit(eager):
    layer = eager.transformers_model.bert.encoder.layer[0].intermediate.dense
    twin = TorchaoTwin(eager.transformers_model, "int8").model.bert.encoder.layer[0].intermediate.dense
    theirs = copy.deepcopy(layer)
    config = quantization.Int8DynamicActivationInt8WeightConfig(version=2, set_inductor_config=False)
    quantization.quantize_(theirs, config)
    hidden = torch.randn(5, 7, layer.in_features)
    with torch.inference_mode():
        torch.testing.assert_close(twin(hidden), theirs(hidden), rtol=0, atol=0)
        assert not torch.equal(twin(hidden), layer(hidden))


def test_a_score_does_not_depend_on_its_neighbours(eager):
    together = logits(eager)
    alone = np.concatenate([logits(eager, [pair]) for pair in PAIRS])
    assert_close(alone, together)
    assert_close(logits(eager, PAIRS[::-1])[::-1], together)


def test_compiled_neighbours_move_a_score_by_no_more_than_rounding(compiled, one_layer):
    """Batches of other sizes are vectorised otherwise, and the last bit of a float decides on a step."""
    alone = np.concatenate([logits(compiled, [pair]) for pair in PAIRS])
    assert_right(alone, one_layer)
    assert_right(logits(compiled, PAIRS[::-1])[::-1], one_layer)


def test_the_model_itself_is_not_touched(one_layer, tmp_path):
    model = made(one_layer, execution=PLAIN)
    before = logits(model)
    state = {name: weight.clone() for name, weight in model.transformers_model.state_dict().items()}
    parts = [id(part) for part in model.transformers_model.parameters()]
    for _ in range(2):
        model.execution = EAGER
        assert np.abs(logits(model) - before).max() > 1e-3
        assert [id(part) for part in model.transformers_model.parameters()] == parts
        model.save_pretrained(str(tmp_path))
        model.execution = PLAIN
        np.testing.assert_array_equal(logits(model), before)
    for name, weight in model.transformers_model.state_dict().items():
        assert torch.equal(weight, state[name]), name
    np.testing.assert_array_equal(logits(made(tmp_path, execution=PLAIN)), before)


def test_only_the_encoders_matrices_are_the_twins_own(eager):
    original = eager.transformers_model
    twin = TorchaoTwin(original, "int8").model
    weights = {
        f"{name}.weight" for name, module in original.named_modules() if module in encoder_layers(original)
    }
    theirs = dict(original.named_parameters())
    own = {name for name, part in twin.named_parameters() if part is not theirs[name]}
    assert own == weights
    assert len(weights) == 6  # query, key, value, output; two of the feed-forward
    assert not any("embeddings" in name or "pooler" in name or "classifier" in name for name in own)
    for name in own:
        assert twin.get_parameter(name).qdata.dtype == torch.int8
        assert twin.get_parameter(name).qdata.numel() == theirs[name].numel()
    assert all(ours is theirs for ours, theirs in zip(twin.buffers(), original.buffers(), strict=True))
    assert twin.config is not original.config


def in_place(transformer: torch.nn.Module) -> None:
    with torch.no_grad():
        transformer.bert.encoder.layer[0].output.dense.weight.mul_(-2)


def replaced(transformer: torch.nn.Module) -> None:
    layer = transformer.bert.encoder.layer[0].output.dense
    layer.weight = torch.nn.Parameter(layer.weight.detach() * -3)


def in_the_head(transformer: torch.nn.Module) -> None:
    transformer.classifier.weight = torch.nn.Parameter(transformer.classifier.weight.detach() * -2)


def another_module(transformer: torch.nn.Module) -> None:
    dense = transformer.bert.encoder.layer[0].output.dense
    twin = copy.deepcopy(dense)
    twin.weight.data.mul_(-2)
    transformer.bert.encoder.layer[0].output.dense = twin


@pytest.mark.parametrize("change", [in_place, replaced, in_the_head, another_module])
def test_a_changed_weight_is_noticed(eager, change):
    before = logits(eager)
    change(eager.transformers_model)
    after = logits(eager)
    assert np.abs(after - before).max() > 0.1
    eager.execution = PLAIN
    assert np.abs(after - logits(eager)).max() < 0.3
    assert np.abs(after - before).max() > 2 * np.abs(after - logits(eager)).max()


def test_without_the_library_a_weight_written_through_data_is_noticed_by_the_next_batch(
    one_layer, monkeypatch
):
    monkeypatch.setattr("xenc.models.weights.library", lambda: Library(missing="no compiler"))
    eager = made(one_layer)
    before = logits(eager)
    dense = eager.transformers_model.bert.encoder.layer[0].output.dense
    dense.weight.data.mul_(-3)
    assert np.abs(logits(eager) - before).max() > 0.1


def test_a_warm_up_reads_weights_anew_where_nothing_looks_at_them(one_layer, monkeypatch):
    monkeypatch.setattr("xenc.models.weights.Contents.changed", lambda self: False)
    eager = made(one_layer)
    before = logits(eager)
    eager.transformers_model.bert.encoder.layer[0].output.dense.weight.data.mul_(-3)
    eager.warmup()
    assert np.abs(logits(eager) - before).max() > 0.1


def test_a_fused_step_is_noticed_where_weights_cannot_be_read(one_layer, monkeypatch):
    """As on a GPU, where reading them would wait for it."""
    monkeypatch.setattr("xenc.models.weights.Contents.changed", lambda self: False)
    eager = made(one_layer)
    before = logits(eager)
    holds = eager.pipeline._twin._held
    model_changes.optimised(fused=True)(eager)
    after = logits(eager)
    assert np.abs(after - before).max() > 0.1
    eager.warmup()
    np.testing.assert_array_equal(logits(eager), after)
    assert eager.pipeline._twin._held is holds


def test_the_steps_of_other_models_are_none_of_a_twins(one_layer):
    eager, other = made(one_layer), made(one_layer)
    logits(eager)
    model_changes.optimised(fused=True)(other)
    assert eager.pipeline._twin._steps.count == 0


def test_a_twin_that_is_gone_watches_no_optimiser(one_layer):
    hooks = _global_optimizer_post_hooks
    gc.collect()
    before = len(hooks)
    twin = TorchaoTwin(made(one_layer, execution=PLAIN).transformers_model, "int8")
    assert len(hooks) == before + 1
    del twin
    gc.collect()
    assert len(hooks) == before


@pytest.mark.parametrize("change", [in_place, replaced, in_the_head])
def test_a_changed_weight_compiles_nothing(compiled, change):
    before = logits(compiled)
    change(compiled.transformers_model)
    with nothing_compiles():
        after = logits(compiled)
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_scores_the_same(eager, duplicate):
    expected = logits(eager)
    twin = duplicate(eager)
    assert twin.execution == EAGER
    np.testing.assert_array_equal(logits(twin), expected)


def test_an_execution_of_the_same_quantisation_keeps_the_twin(eager):
    twin = eager.pipeline._twin
    eager.execution = Execution(**TORCHAO, compile_mode=None, token_budgets=(128,))
    assert eager.pipeline._twin is twin
    eager.execution = PLAIN
    assert eager.pipeline._twin is None


def test_what_cannot_be_is_refused():
    with pytest.raises(ExecutionError, match=r"quantize='int4' is not one of None, 'int8', 'float8'"):
        Execution(quantize="int4")


def test_executions_of_different_precision_do_not_share_graphs():
    settings = {Execution(quantize=kind).graph_settings for kind in (None, "int8", "float8")}
    assert len(settings) == 3


def test_float8_on_a_processor_is_refused_and_the_execution_stays(eager):
    with pytest.raises(ExecutionError, match=r"float8.*on cpu\. Use quantize='int8'"):
        eager.execution = "packed-float8"
    assert eager.execution == EAGER


def test_without_torchao_the_error_says_how_to_get_it(one_layer, monkeypatch):
    find = xenc.models.quantize.find_spec
    monkeypatch.setattr(
        "xenc.models.quantize.find_spec", lambda name: None if name == "torchao" else find(name)
    )
    with pytest.raises(
        NotInstalledError, match=r"quantize='int8' needs torchao.*pip install 'xenc\[torchao\]'"
    ):
        made(one_layer)


def test_a_processor_whose_int8_sums_overflow_is_refused(one_layer, monkeypatch):
    """As vpmaddubsw does: unsigned by signed, two neighbours at a time, saturated to sixteen bits."""

    def saturating(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        products = (left.int() + 128)[:, :, None] * right.int()[None]
        sums = products.unflatten(1, (-1, 2)).sum(2).clamp(-(2**15), 2**15 - 1).sum(1)
        return sums - 128 * right.int().sum(0)

    monkeypatch.setattr(torch, "_int_mm", saturating)
    with pytest.raises(ExecutionError, match="overflow on this processor"):
        made(one_layer)


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_without_int8_instructions_is_said_once(one_layer, monkeypatch, caplog, has):
    monkeypatch.setattr("xenc.models.quantize.has_int8_instructions", lambda device: has)
    _warn_slow.cache_clear()
    for _ in range(2):
        made(one_layer)
    assert caplog.text.count("no int8 instructions") == (not has)


def test_no_setting_of_the_process_is_left_changed(one_layer):
    before = torch._inductor.config.get_config_copy()
    made(one_layer)
    assert torch._inductor.config.get_config_copy() == before


def test_int8_on_cuda_is_refused():
    on_cuda = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16)
    with pytest.raises(ExecutionError, match=r"does not run on CUDA.* Use quantize='float8'"):
        check_device(on_cuda, "int8")


def test_float8_on_an_old_gpu_is_refused_without_naming_int8_which_does_not_run_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    on_cuda = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16)
    with pytest.raises(ExecutionError, match=r"needs compute capability 8\.9.* Use quantize=None\.$"):
        check_device(on_cuda, "float8")


@pytest.mark.gpu
def test_on_cuda_scores_are_right_and_nothing_compiles(one_layer):
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("float8 needs compute capability 8.9")
    settings = {"model_kwargs": {"dtype": torch.bfloat16}, "device": "cuda"}
    model = xenc.CrossEncoder(str(one_layer), execution=Execution(quantize="float8", strict=True), **settings)
    model.warmup()
    with nothing_compiles():
        scores = logits(model)
    exact = oracle.logits(one_layer, PAIRS, max_length=64)
    assert root_mean_square(scores - exact) < 0.3


def test_a_changed_setting_shows_in_the_next_score(eager):
    before = logits(eager)
    for module in eager.transformers_model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1.0
    assert np.abs(logits(eager) - before).max() > 1e-2


def test_a_hook_that_is_set_later_runs(eager, one_layer):
    exact = logits(made(one_layer, execution=PLAIN))
    eager.transformers_model.classifier.register_forward_hook(lambda module, inputs, out: out + 1)
    assert_close(logits(eager), exact + 1, 1e-5)
