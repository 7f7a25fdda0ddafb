"""The kernels of a forward pass on an H200, and the least time each can take, predicted without a GPU.

    python -m perf_tests.predicted_kernels [--preset packed] [--geometry xlm-roberta-base] [--layers 12]
        [--tokens 16384] [--pair-tokens 512] [--products cublaslt] [--compile]

Needs a CUDA build of PyTorch and Triton, and no GPU: see `absent_gpu`. A kernel's least time is that of its
bytes, as Inductor counts what it reads and writes, at the bandwidth of a copy, or that of its FLOPs at the
datasheet's peak, whichever is longer. Nothing runs, so this is a floor to hold a profile against: Triton's
kernels have the same names there.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor
from torch._inductor.cudagraph_utils import check_lowering_disable_cudagraph
from torch._inductor.utils import get_first_incompatible_cudagraph_node
from torch._subclasses import FakeTensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.initialization import no_init_weights

from perf_tests import absent_gpu
from perf_tests.launches import Launch, launches_of
from xenc import PRESETS
from xenc.compiling.wrapper import Batch
from xenc.execution import Products
from xenc.layouts.base import Layout
from xenc.layouts.choice import layout_of
from xenc.models.families import packable
from xenc.models.kernel_twin import twin_for
from xenc.models.reranker import Reranker

PREDICTABLE: Final = ("packed", "packed-float8", "bucketed")
"""Presets whose kernels Inductor chooses without timing them."""

GEOMETRIES: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "xlm-roberta-base": (
        "xlm-roberta", {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "minilm-l6": (
        "bert",
        {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "modernbert-base": ("modernbert", {}),
    "qwen3-0.6b": (
        "qwen3",
        {
            "num_hidden_layers": 28, "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 128, "intermediate_size": 3072, "pad_token_id": 0,
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """Every launch of one forward pass, in order.

    Attributes:
        shape: of the batch, (T, N) or (B, L).
        launches: in order.
        no_cuda_graph: why Inductor would not put it into a CUDA graph; None if it would.
        code: the module that Inductor generated.
    """

    shape: tuple[int, int]
    launches: list[Launch]
    no_cuda_graph: str | None
    code: str


def predict(
    preset: str, geometry: str = "xlm-roberta-base", *, layers: int | None = None, tokens: int = 16_384,
    pair_tokens: int = 512, products: Products | None = None,
) -> Prediction:  # fmt: skip
    """What Inductor generates for one batch, in bfloat16.

    Args:
        preset: one of PREDICTABLE.
        geometry: one of GEOMETRIES.
        layers: of the model; None for as many as the geometry has.
        tokens: of the batch; of a padded one, in rows of pair_tokens.
        pair_tokens: how many tokens each pair has.
        products: as `Execution.products`.

    Raises:
        NoCompilerError: a CUDA build of PyTorch, or Triton, is absent.
    """
    absent_gpu.check_compilers()
    torch._dynamo.reset()
    execution = replace(PRESETS[preset], products=products)
    sizes: dict[str, Any] = (
        {"token_budgets": (tokens,)} if execution.layout == "packed" else {"buckets": (pair_tokens,)}
    )
    with ExitStack() as stack:
        stack.enter_context(absent_gpu.fake_tensors())
        stack.enter_context(torch.inference_mode())
        stack.enter_context(_what_fake_tensors_cannot_say())
        model = _model(geometry, layers)
        twin, _ = twin_for(model, execution)
        model = model if twin is None else twin.model
        layout = layout_of(_reranker(model, pair_tokens), replace(execution, **sizes))
        model.set_attn_implementation(layout.attention)
        batch = _batch(layout, max(2, tokens // pair_tokens))

        def look(graph: Any, kernel_of: dict[str, str]) -> tuple[list[Launch], str | None]:
            return launches_of(graph, kernel_of, pair_tokens), _why_no_cuda_graph(graph)

        with absent_gpu.generating(look) as generated:
            layout.forward(batch)
    launches, no_cuda_graph = generated.seen
    return Prediction(batch.shape, launches, no_cuda_graph, generated.code)


def _model(geometry: str, layers: int | None) -> PreTrainedModel:
    architecture, settings = GEOMETRIES[geometry]
    if layers is not None:
        settings = {**settings, "num_hidden_layers": layers}
    config = AutoConfig.for_model(architecture, num_labels=1, **settings)
    with absent_gpu.DEVICE, no_init_weights(), torch.inference_mode(False), torch.no_grad():
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)
    return model.eval()


def _batch(layout: Layout, pairs: int) -> Batch:
    """A padded batch of so many pairs; of packed ones of the largest budget that of the fewest slots."""
    batches = list(layout.every_shape(pairs))
    tokens = batches[0].shape[0]
    fitting = [batch for batch in batches if batch.shape[0] == tokens and batch.shape[1] >= pairs]
    return min(fitting, key=lambda batch: batch.shape[1], default=batches[0])


def _reranker(model: PreTrainedModel, max_length: int) -> Reranker:
    names = ["input_ids", "token_type_ids"] if model.config.model_type == "bert" else ["input_ids"]
    tokenizer: Any = SimpleNamespace(pad_token_id=model.config.pad_token_id, model_input_names=names)
    return Reranker(model=model, tokenizer=tokenizer, max_length=max_length, packing=packable(model))


def _what_fake_tensors_cannot_say() -> ExitStack:
    """The attention that a GPU would choose, that it multiplies in eight bits, and that weights are plain."""
    stack = ExitStack()
    stack.enter_context(mock.patch("xenc.models.replace.Parameter", FakeTensor))
    stack.enter_context(
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", _attention_on_cuda)
    )
    with warnings.catch_warnings(action="ignore"):
        try:
            import torchao.quantization.quant_api  # noqa: F401
        except ImportError:
            return stack
    stack.enter_context(mock.patch("torchao.quantization.quant_api._check_hardware_support"))
    return stack


def _attention_on_cuda(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """FlashAttention, or with a mask, which that does not take, the memory-efficient kernel with a bias."""
    if attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, is_causal, scale=scale
        )[0]
    bias = torch.where(attn_mask, 0.0, -math.inf).to(query.dtype)
    bias = bias.expand(*query.shape[:3], key.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, False, 0.0, is_causal, scale=scale
    )[0]


def _why_no_cuda_graph(graph: Any) -> str | None:
    """By Inductor's own rules."""
    if graph.mutated_inputs:
        return f"inputs are written to: {', '.join(graph.mutated_inputs)}"
    unfit = get_first_incompatible_cudagraph_node(graph.module)
    if unfit is not None:
        return f"{unfit.target} cannot be in one"
    return check_lowering_disable_cudagraph(dict(graph.device_node_mapping))


def table(prediction: Prediction) -> str:
    """One line for each kernel, the longest in all first, and the total."""
    counts = Counter(prediction.launches)
    rows = sorted(counts.items(), key=lambda row: -row[0].seconds * row[1])
    total = sum(launch.seconds for launch in prediction.launches)
    lines = [f"{'times':>5} {'MB':>7} {'GFLOP':>7} {'us':>7} {'ms in all':>9} {'share':>6}  kernel"]
    for launch, times in rows:
        seconds = launch.seconds * times
        lines.append(
            f"{times:5} {launch.bytes / 1e6:7.1f} {launch.flops / 1e9:7.1f} {launch.seconds * 1e6:7.1f} "
            f"{seconds * 1e3:9.3f} {seconds / total:6.1%}  {launch.name}"
        )
    flops = sum(launch.flops for launch in prediction.launches)
    moved = sum(launch.bytes for launch in prediction.launches)
    lines.append(
        f"{len(prediction.launches):5} {moved / 1e6:7.0f} {flops / 1e9:7.0f} {'':7} {total * 1e3:9.3f} {'':8}"
        f"at least, for a batch of shape {prediction.shape}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m perf_tests.predicted_kernels", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--preset", choices=PREDICTABLE, default="packed")
    add("--geometry", choices=GEOMETRIES, default="xlm-roberta-base")
    add("--layers", type=int)
    add("--tokens", type=int, default=16_384)
    add("--pair-tokens", type=int, default=512)
    add("--products", choices=("torch", "cublaslt"))
    add("--compile", action="store_true", help="compile each Triton kernel to a cubin as well")
    add("--code", action="store_true", help="print the module that Inductor generated")
    asked = vars(parser.parse_args())
    compiles, code = asked.pop("compile"), asked.pop("code")
    try:
        prediction = predict(**asked)
    except absent_gpu.NoCompilerError as error:
        raise SystemExit(str(error)) from None
    if code:
        print(prediction.code)
    print(table(prediction))
    print(f"CUDA graph: {prediction.no_cuda_graph or 'Inductor would make one'}")
    if compiles:
        variants = absent_gpu.compile_kernels(prediction.code)
        print(f"{len(variants)} Triton kernels compile for sm_90, in {sum(variants.values())} variants")


if __name__ == "__main__":
    main()
