"""The graphs that Inductor would get on CUDA in bfloat16, checked without a GPU: see `fake_cuda`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._inductor.utils import get_first_incompatible_cudagraph_node
from torch._subclasses import FakeTensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights

from correctness_tests import fake_cuda
from correctness_tests.fake_cuda import DEVICE, Graph
from correctness_tests.kernels.compiled_triton import needs_triton
from xenc import Execution
from xenc.kernels import biased_attention as biased
from xenc.kernels import packed_attention as packed
from xenc.kernels import pooled_attention as pooled
from xenc.kernels import prefix_attention as prefixed
from xenc.layouts.choice import layout_of
from xenc.models.families import packable
from xenc.models.kernel_twin import twin_for
from xenc.models.quantize import TorchaoTwin, encoder_layers
from xenc.models.relative_attention import distance_buckets
from xenc.models.reranker import Reranker
from xenc.text.prompts import FirstStepIds

LAYERS, MAX_LENGTH, BATCH_SIZE = 2, 128, 4
PACKED = Execution(token_budgets=(256, 512))
BUCKETED = Execution(layout="bucketed", buckets=(32, 64, 128))

_BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
_QWEN = {
    "vocab_size": 1000, "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "intermediate_size": 3072, "pad_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta": ("xlm-roberta", {**_BASE, "max_position_embeddings": 514, "pad_token_id": 1}),
    "bert": ("bert", {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}),
    "distilbert": ("distilbert", {"n_layers": LAYERS}),
    "modernbert": ("modernbert", {"global_attn_every_n_layers": 3}),
    "modernbert-mean": ("modernbert", {"global_attn_every_n_layers": 3, "classifier_pooling": "mean"}),
    "qwen3": ("qwen3", _QWEN),
    "qwen3-causal": ("qwen3", _QWEN),
}
"""The geometries of common rerankers, except for the number of layers."""

RELATIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta-v3": (
        "deberta-v2",
        {
            **_BASE, "vocab_size": 1000, "relative_attention": True, "position_buckets": 256,
            "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm",
            "position_biased_input": False, "type_vocab_size": 0, "pooler_hidden_size": 768,
        },
    ),
    "mpnet": ("mpnet", {**_BASE, "vocab_size": 1000, "max_position_embeddings": 514, "pad_token_id": 1}),
}  # fmt: skip
"""Those whose attention depends on how far apart tokens are."""

ASKING_ALONE = ("xlm-roberta", "bert")
"""Those in whose last layer only the tokens ask that the head reads."""

JOINED = {"xlm-roberta": LAYERS - 1, "bert": LAYERS - 1, "distilbert": LAYERS}
"""How many layers can have one product of query, key and value."""


@dataclass(frozen=True)
class Traced:
    """A forward pass that was warmed up, and the graphs that came of it."""

    compiled: Any
    graphs: list[Graph]


@pytest.fixture
def device(monkeypatch) -> Iterator[None]:
    fake_cuda.without_waiting(monkeypatch)
    with fake_cuda.no_device(), torch.inference_mode():
        yield


def made(family: str, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    """On fake CUDA, as transformers loads it."""
    architecture, settings = {**FAMILIES, **RELATIVE}[family]
    config = AutoConfig.for_model(architecture, num_labels=1, num_hidden_layers=LAYERS, **settings)
    kind = AutoModelForCausalLM if family == "qwen3-causal" else AutoModelForSequenceClassification
    with DEVICE, no_init_weights(), torch.inference_mode(False), torch.no_grad():
        return kind.from_config(config, dtype=dtype).eval()


def reranker(model: PreTrainedModel, **others: Any) -> Reranker:
    """What a layout asks of a tokenizer, and nothing else of it."""
    names = ["input_ids", "token_type_ids"] if model.config.model_type == "bert" else ["input_ids"]
    tokenizer: Any = SimpleNamespace(pad_token_id=model.config.pad_token_id, model_input_names=names)
    targets = (10, 11) if type(model).__name__.endswith("CausalLM") else ()
    return Reranker(
        model=model, tokenizer=tokenizer, max_length=MAX_LENGTH, packing=packable(model), targets=targets,
        **others,
    )  # fmt: skip


def traced(monkeypatch, model: PreTrainedModel, execution: Execution, **others: Any) -> Traced:
    """Warmed up as on a GPU, up to where Inductor would generate code."""
    with torch.inference_mode(False):
        layout = layout_of(reranker(model, **others), execution)
    if model.config.model_type != "t5":
        model.set_attn_implementation(layout.attention)
    with fake_cuda.recorded(monkeypatch) as graphs:
        layout.compiled.warmup(layout.every_shape(BATCH_SIZE), passes=1)
    return Traced(layout.compiled, graphs)


def assert_a_cuda_graph_can_hold(graph: Graph) -> None:
    """By Inductor's criteria: one device, no synchronization, no input is written to."""
    assert {tensor.device for tensor in graph.tensors} == {DEVICE}
    assert get_first_incompatible_cudagraph_node(graph.module) is None
    calls = [node.target for node in graph.nodes if node.op == "call_function"]
    operators = [target for target in calls if isinstance(target, torch._ops.OpOverload)]
    assert operators
    assert [target for target in operators if target._schema.is_mutable] == []
    assert all(isinstance(each, (torch.Tensor, torch.SymInt)) for each in graph.inputs)


def assert_the_kernel_answers_what_the_graph_was_told(node: torch.fx.Node, kernel: Any) -> None:
    """The result that PyTorch expects of its CUDA kernel for these tensors, against our operator's."""
    told = node.meta["val"]
    answered = kernel(*(each.meta["val"] if isinstance(each, torch.fx.Node) else each for each in node.args))
    assert answered.shape == told.shape
    assert answered.stride() == told.stride()
    assert (answered.dtype, answered.device) == (told.dtype, told.device) == (torch.bfloat16, DEVICE)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_batches_of_all_sizes_are_one_graph_that_a_cuda_graph_can_hold(family, device, monkeypatch):
    run = traced(monkeypatch, made(family), PACKED)
    assert len(run.graphs) == run.compiled.graphs == 1
    [graph] = run.graphs
    attention = graph.calls(torch.ops.xenc.packed_attention)
    last = graph.calls(torch.ops.xenc.pooled_attention)
    assert len(last) == (1 if family in ASKING_ALONE else 0)
    assert len(attention) + len(last) == LAYERS
    assert_a_cuda_graph_can_hold(graph)
    for node in attention:
        assert_the_kernel_answers_what_the_graph_was_told(node, packed._on_cuda)
    for node in last:
        assert_the_kernel_answers_what_the_graph_was_told(node, pooled._on_cuda)


@pytest.mark.parametrize(("family", "largest"), [("mpnet", 1912), ("deberta-v3", 7688)])
def test_attention_with_a_bias_runs_packed_in_one_graph_that_a_cuda_graph_can_hold(
    family, largest, device, monkeypatch
):
    """Though the first batch has as many bounds of slots as there are distances."""
    model = made(family)
    run = traced(monkeypatch, model, replace(PACKED, token_budgets=(512, largest)))
    assert len(run.graphs) == run.compiled.graphs == 1
    [graph] = run.graphs
    assert len(graph.calls(torch.ops.xenc.biased_attention)) == LAYERS
    assert_a_cuda_graph_can_hold(graph)
    distances = len(distance_buckets(model.base_model, MAX_LENGTH))
    assert max(slots for _, slots in run.compiled._warm_shapes) + 1 == distances


@needs_triton
@pytest.mark.parametrize("family", RELATIVE)
def test_the_cuda_kernel_with_a_bias_answers_what_the_graph_was_told(family, device, monkeypatch):
    """And waits for nothing. Only the launch is left out."""
    [graph] = traced(monkeypatch, made(family), PACKED).graphs
    launched: list[Any] = []
    monkeypatch.setattr("xenc.kernels.triton_bias.launch", lambda *how: launched.append(how))
    monkeypatch.setattr("xenc.kernels.triton_bias._config_on", lambda *_: SimpleNamespace(block_m=64))
    monkeypatch.setattr(torch.cuda, "device_of", lambda _: nullcontext())
    monkeypatch.setattr(FakeTensor, "data_ptr", lambda _: 0)
    for node in graph.calls(torch.ops.xenc.biased_attention):
        assert_the_kernel_answers_what_the_graph_was_told(node, biased._on_cuda)
    assert len(launched) == LAYERS


@pytest.mark.parametrize("family", RELATIVE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_where_attention_with_a_bias_does_not_run_the_reason_is_said(family, dtype, device, monkeypatch):
    model = made(family, dtype)
    monkeypatch.setattr("xenc.models.families.why_not_biased", lambda *asked: f"no kernel for {asked}")
    asked = (DEVICE, dtype, 64)
    said = f"{type(model).__name__} on cuda, where attention with a bias does not run: no kernel for {asked}"
    assert packable(model) == said


@pytest.mark.parametrize("family", FAMILIES)
def test_by_cublaslt_gelu_and_joint_products_leave_one_graph_without_a_copy(family, device, monkeypatch):
    monkeypatch.setattr("xenc.models.replace.Parameter", FakeTensor)  # as what weights are here
    model = made(family)
    [plain] = traced(monkeypatch, model, PACKED).graphs
    twin, said = twin_for(model, replace(PACKED, products="cublaslt"))
    assert said.startswith("cublaslt for bfloat16, as asked for")
    run = traced(monkeypatch, twin.model, PACKED)
    [graph] = run.graphs
    assert run.compiled.graphs == 1
    assert_a_cuda_graph_can_hold(graph)
    like_bert = family in JOINED
    products = [len(each.calls(torch.ops.aten.addmm)) for each in (plain, graph)]
    fused = graph.calls(torch.ops.aten._addmm_activation)
    assert len(fused) == (LAYERS if like_bert else 0)
    assert products[0] - products[1] - len(fused) == 2 * JOINED.get(family, 0)
    if like_bert:
        assert len(plain.calls(torch.ops.aten.erf)) == LAYERS
        assert graph.calls(torch.ops.aten.erf) == []
    for copy in ("clone", "copy", "cat", "_to_copy", "mm"):
        before, after = (each.calls(getattr(torch.ops.aten, copy)) for each in (plain, graph))
        assert len(before) == len(after), copy
    for node in graph.calls(torch.ops.xenc.packed_attention):
        assert_the_kernel_answers_what_the_graph_was_told(node, packed._on_cuda)


def test_padded_batches_of_all_buckets_are_one_graph_that_a_cuda_graph_can_hold(device, monkeypatch):
    run = traced(monkeypatch, made("xlm-roberta"), BUCKETED)
    assert len(run.graphs) == run.compiled.graphs == 1
    assert_a_cuda_graph_can_hold(run.graphs[0])


def test_the_first_step_of_a_decoder_is_one_graph_that_a_cuda_graph_can_hold(device, monkeypatch):
    config = AutoConfig.for_model("t5", num_layers=LAYERS)
    with DEVICE, no_init_weights(), torch.inference_mode(False), torch.no_grad():
        model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.bfloat16).eval()
    first_step = FirstStepIds(prefixes=((0,),), targets=((10, 11),), scale=1.0)
    run = traced(monkeypatch, model, BUCKETED, first_step_ids=first_step)
    assert len(run.graphs) == run.compiled.graphs == 1
    assert_a_cuda_graph_can_hold(run.graphs[0])


def test_a_prefix_is_read_by_one_graph_and_followed_in_another(device, monkeypatch):
    run = traced(monkeypatch, made("qwen3-causal"), replace(PACKED, share_prefix=True))
    read, follow = run.graphs
    assert run.compiled.graphs == 2
    reading = read.calls(torch.ops.xenc.packed_attention)
    following = follow.calls(torch.ops.xenc.prefixed_attention)
    assert len(following) == LAYERS
    assert len(reading) == LAYERS - 1  # of the last layer only keys and values are kept
    for graph in run.graphs:
        assert_a_cuda_graph_can_hold(graph)
    for node in reading:
        assert_the_kernel_answers_what_the_graph_was_told(node, packed._on_cuda)
    for node in following:
        assert_the_kernel_answers_what_the_graph_was_told(node, prefixed._on_cuda)


def test_every_product_of_a_quantised_encoder_is_one_in_eight_bits(device, monkeypatch):
    pytest.importorskip("torchao")
    model = made("xlm-roberta")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr("torchao.quantization.quant_api._check_hardware_support", lambda granularities: None)
    twin = TorchaoTwin(model, "float8")
    run = traced(monkeypatch, twin.model, PACKED)
    [graph] = run.graphs
    assert len(graph.calls(torch.ops.aten._scaled_mm)) == len(encoder_layers(model)) == 6 * LAYERS
    assert len(graph.calls(torch.ops.xenc.packed_attention)) == LAYERS - 1
    assert len(graph.calls(torch.ops.xenc.pooled_attention)) == 1
    assert_a_cuda_graph_can_hold(graph)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("window", [packed.NO_WINDOW, 5], ids=["all", "window"])
@pytest.mark.parametrize("heads", [(12, 12), (16, 8)], ids=str)
def test_the_cuda_kernel_answers_as_the_operator_says_and_waits_for_nothing(dtype, causal, window, heads):
    with fake_cuda.no_device(scalars=False):
        query, key = (torch.empty(64, count, 32, dtype=dtype, device=DEVICE) for count in heads)
        cu_seqlens = torch.empty(9, dtype=torch.int32, device=DEVICE)
        arguments = (query, key, key.clone(), cu_seqlens, 32, 0.5, causal, window)
        told = packed.packed_attention(*arguments)
        if dtype == torch.float32 and window != packed.NO_WINDOW:
            with pytest.raises(NotImplementedError, match="no CUDA kernel"):
                packed._on_cuda(*arguments)
            return
        assert described(packed._on_cuda(*arguments)) == described(told) == described(query)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_after_a_prefix_it_does_so_too(dtype):
    with fake_cuda.no_device(scalars=False):
        query, key = (torch.empty(64, heads, 32, dtype=dtype, device=DEVICE) for heads in (16, 8))
        prefix = torch.empty(40, 8, 32, dtype=dtype, device=DEVICE)
        cu_seqlens = torch.empty(9, dtype=torch.int32, device=DEVICE)
        arguments = (query, key, key.clone(), cu_seqlens, prefix, prefix.clone(), cu_seqlens[:2], 32, 0.5)
        told = prefixed.prefixed_attention(*arguments)
        if dtype == torch.float32:
            with pytest.raises(NotImplementedError, match="no CUDA kernel"):
                prefixed._on_cuda(*arguments)
            return
        assert described(prefixed._on_cuda(*arguments)) == described(told) == described(query)


def described(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


@pytest.mark.parametrize("execution", [PACKED, BUCKETED], ids=["packed", "bucketed"])
def test_batches_stand_on_the_device_in_the_shapes_and_dtypes_that_the_forward_takes(execution, device):
    model = made("bert")
    layout = layout_of(reranker(model), execution)
    for batch in layout.every_shape(BATCH_SIZE):
        tensors = {
            name: value
            for name in type(batch).__dataclass_fields__
            if isinstance(value := getattr(batch, name), torch.Tensor)
        }
        assert {tensor.device for tensor in tensors.values()} == {DEVICE}
        for name, tensor in tensors.items():
            assert tensor.dtype == (torch.int32 if name == "cu_seqlens" else torch.int64)
        assert all(tensor.is_contiguous() for tensor in tensors.values())
        # Inductor copies what is given to it unaligned
        assert all(tensor.storage_offset() * tensor.itemsize % 16 == 0 for tensor in tensors.values())
