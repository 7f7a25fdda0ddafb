"""FLOPs of a workload on a model, and the peak of a device: how far from the limit a measurement is.

Model FLOPs are those of REAL tokens: padding counts as waste, not as work. For a pair of n tokens on a
bidirectional encoder of P non-embedding parameters, l layers and hidden size h (Kaplan et al. 2020,
"Scaling Laws for Neural Language Models", table 1, without its halving for causal masks):

    FLOPs(n) = n x (2 P + 4 l h n) - (n - 1) x (2 Q + 4 h n)

The subtrahend is what the last layer need not do where the head reads one token of each pair
(`families.Packable.pooled_alone`): that token alone asks, so attention has one row, and the Q parameters of
the query and behind attention are passed once. In other families it is 0. What need not be computed is no
work, whether a layout leaves it out or, padded, does not: skipping it shows in the seconds alone.

MFU = FLOPs / (seconds x peak). The pooler and the head run on one token per pair and are left out.

A peak is what a device does on one large product, on a processor by whatever multiplies fastest there; a
model's own products are smaller. What they take by themselves on this device, measured and not computed, is
the floor that any forward pass stands on: the GEMM share of a run is that floor / its seconds.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from transformers import PreTrainedModel

from ..kernels.products import seconds, ways
from ..layouts.packed import USUAL_BUDGET
from ..models.families import Packable, packable
from ..models.last_layer import of_pooled_alone
from ..models.precision import fastest_dtype

DENSE_PEAKS: Final = {
    # datasheet peaks without sparsity, in FLOP/s of bfloat16 and float16 matrix products
    "H200": 989.4e12,
    "H100 PCIe": 756e12,
    "H100": 989.4e12,
    "A100": 312e12,
}


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A device's dense peak for one dtype, and where the number comes from."""

    flops_per_s: float
    source: str


def encoder_parameters(model: PreTrainedModel) -> int:
    """Parameters that every token of a pair passes: the encoder without embeddings and pooler."""
    body = _body(model)
    looked_up = {
        id(parameter)
        for module in body.modules()
        if isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters()
    }
    return sum(
        parameter.numel()
        for name, parameter in body.named_parameters()
        if not name.startswith(("embeddings.", "pooler.")) and id(parameter) not in looked_up
    )


def _read_once(model: PreTrainedModel) -> tuple[torch.nn.Module, ...]:
    """Modules of the encoder that only one token of each pair need pass."""
    traits = packable(model)
    alone = isinstance(traits, Packable) and traits.pooled_alone
    return of_pooled_alone(model) if alone else ()


def _body(model: PreTrainedModel) -> torch.nn.Module:
    """What all tokens run through: of an encoder-decoder the encoder, since one token enters the decoder."""
    body: torch.nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    return body


def workload_flops(model: PreTrainedModel, token_counts: Iterable[int]) -> float:
    """FLOPs that pairs of these true token counts need, by the formula above."""
    per_token = 2 * encoder_parameters(model)
    per_attended = 4 * model.config.num_hidden_layers * model.config.hidden_size
    once = _read_once(model)
    passed_once = 2 * sum(part.numel() for module in once for part in module.parameters())
    asked_once = 4 * model.config.hidden_size if once else 0

    def of_pair(count: int) -> int:
        needless = max(0, count - 1) * (passed_once + asked_once * count)
        return int(count * (per_token + per_attended * count) - needless)

    return float(sum(map(of_pair, token_counts)))


@cache
def device_peak(device: str, dtype: torch.dtype) -> Peak:
    """The device's dense peak: from the datasheet for a known GPU, else of a measured matrix product.

    On a processor it is the fastest product of all the ways there are to multiply; see `kernels.products`.

    Args:
        device: "cpu" or "cuda".
        dtype: what is multiplied; int8 for executions in eight bits.
    """
    if device == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name()
        for known, flops_per_s in DENSE_PEAKS.items():
            if known in name:
                return Peak(flops_per_s=flops_per_s, source=f"datasheet of {known}")
    size = (
        2048 if dtype in (torch.float32, torch.int8, fastest_dtype(device)) else 256
    )  # emulated, in minutes
    taken = seconds(_products(device, dtype, size), rounds=5)
    way = min(taken, key=lambda way: min(taken[way]))
    return Peak(
        flops_per_s=2 * size**3 / min(taken[way]),
        source=f"best of 5 products of {size} x {size} matrices by {way}",
    )


def _products(device: str, dtype: torch.dtype, size: int) -> dict[str, Callable[[], object]]:
    if device == "cpu":
        return ways(dtype, size, size, size)
    left = torch.randn(size, size, device=device, dtype=dtype)
    return {"torch": lambda: (left @ left)[0, 0].item()}  # waits for the device


@torch.inference_mode()
def gemm_seconds_per_token(
    model: PreTrainedModel,
    tokens: int | None = None,
    repeats: int = 5,
    dtype: torch.dtype | None = None,
) -> float:
    """Seconds that the encoder's matrix products alone take per token, bias included: median of repeats.

    Those that one token of each pair passes are left out. Each distinct product is run on random activations,
    in the fastest way there is here, and counted as often as the encoder has it. Run it in the same process
    and at the same time as what it is compared with.

    Args:
        model: on its device.
        tokens: rows of the activations; None for as many as a usual batch of the device has: on fewer, a GPU
            would wait for each product to be launched.
        repeats: timed passes.
        dtype: what is multiplied; None for the model's, int8 for executions in eight bits.
    """
    tokens = tokens or USUAL_BUDGET.get(model.device.type, 2048)
    once = {id(part) for module in _read_once(model) for part in module.modules()}
    layers = Counter(
        (module.in_features, module.out_features)
        for name, module in _body(model).named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith("pooler") and id(module) not in once
    )
    products = [
        (_fastest_product(model, tokens, sizes, dtype or model.dtype), count)
        for sizes, count in layers.items()
    ]

    def pass_seconds() -> float:
        _wait(model.device)
        started = time.perf_counter()
        for product, count in products:
            for _ in range(count):
                product()
        _wait(model.device)
        return time.perf_counter() - started

    pass_seconds()
    return statistics.median(pass_seconds() for _ in range(repeats)) / tokens


def _fastest_product(
    model: PreTrainedModel, tokens: int, sizes: tuple[int, int], dtype: torch.dtype
) -> Callable[[], object]:
    inputs, outputs = sizes
    if model.device.type == "cpu":
        found = ways(dtype, tokens, inputs, outputs)
        taken = seconds(found, rounds=3)
        return found[min(taken, key=lambda way: min(taken[way]))]
    layer = torch.nn.Linear(inputs, outputs, device=model.device, dtype=model.dtype)
    activations = torch.randn(tokens, inputs, device=model.device, dtype=model.dtype)
    return lambda: layer(activations)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
