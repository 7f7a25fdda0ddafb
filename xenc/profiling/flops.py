"""FLOPs of a workload on a model, and a device's peak: how near a measurement comes to the limit.

Only real tokens count, not padding. For a pair of n tokens on a bidirectional encoder of P non-embedding
parameters, l layers and hidden size h (Kaplan et al. 2020, "Scaling Laws for Neural Language Models",
table 1, without its halving for causal masks):

    FLOPs(n) = n x (2 P + 4 l h n) - (n - 1) x (2 Q + 4 h n)

The second term is what the last layer may skip where the head reads one token of each pair
(`models.families.Packable.pooled_alone`): attention then has one query, and one token passes the Q parameters
of the query and of everything after attention. In other families it is 0. It is subtracted whether or not an
execution skips that work. The pooler and the head, one token per pair, do not count.
MFU = FLOPs / (seconds x peak).

A peak is reached on one large matrix product; a model's own products are smaller. The time that those take
is therefore measured too: no forward pass in the same dtype can be faster.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Final, NamedTuple

import torch
from transformers import PreTrainedModel

from ..kernels.products import seconds, ways
from ..layouts.packed import USUAL_BUDGET
from ..models.families import Packable, packable
from ..models.last_layer import of_pooled_alone
from ..models.precision import fastest_dtype

DENSE_PEAKS: Final = {"H200": 989.4e12, "H100 PCIe": 756e12, "H100": 989.4e12, "A100": 312e12}
"""FLOP/s of bfloat16 and float16 products without sparsity, from datasheets."""


class Peak(NamedTuple):
    """A device's dense peak in one dtype, in FLOP/s, and where the number comes from."""

    flops_per_s: float
    source: str


def encoder_parameters(model: PreTrainedModel) -> int:
    """Parameters that every token passes: the encoder's, without embeddings and pooler."""
    body = _body(model)
    embeddings = [module for module in body.modules() if isinstance(module, torch.nn.Embedding)]
    looked_up = {id(parameter) for module in embeddings for parameter in module.parameters()}
    return sum(
        parameter.numel()
        for name, parameter in body.named_parameters()
        if not name.startswith(("embeddings.", "pooler.")) and id(parameter) not in looked_up
    )


def workload_flops(model: PreTrainedModel, token_counts: Iterable[int]) -> float:
    """FLOPs that pairs of these real token counts need, by the formula above."""
    hidden = model.config.hidden_size
    per_token, per_attended = 2 * encoder_parameters(model), 4 * model.config.num_hidden_layers * hidden
    skipped = _passed_by_one_token(model)
    passed_once = 2 * sum(part.numel() for module in skipped for part in module.parameters())
    attended_once = 4 * hidden if skipped else 0

    def of_pair(count: int) -> int:
        needless = max(0, count - 1) * (passed_once + attended_once * count)
        return int(count * (per_token + per_attended * count) - needless)

    return float(sum(map(of_pair, token_counts)))


@cache
def device_peak(device: str, dtype: torch.dtype) -> Peak:
    """The dense peak of "cpu" or "cuda": a known GPU's from its datasheet, else the fastest of five products.

    `dtype` is that of the factors: torch.int8 for quantized executions.
    """
    if device == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name()
        for known, flops_per_s in DENSE_PEAKS.items():
            if known in name:
                return Peak(flops_per_s=flops_per_s, source=f"datasheet of {known}")
    size = 2048 if _has_instructions(device, dtype) else 256
    least_s, way, _ = _fastest_product(device, dtype, (size, size, size), rounds=5)
    source = f"best of 5 products of {size} x {size} matrices by {way}"
    return Peak(flops_per_s=2 * size**3 / least_s, source=source)


@torch.inference_mode()
def gemm_seconds_per_token(
    model: PreTrainedModel, repeats: int = 5, dtype: torch.dtype | None = None
) -> float:
    """Seconds per token of the encoder's matrix products, bias included: the median of `repeats` passes.

    Products that one token of each pair passes are left out. Each distinct product runs on random activations
    in the fastest way available, as often as the encoder has it, on the tokens of a usual batch (64 tokens in
    a dtype that a CPU emulates). Run it in the process and at the time of what it is compared with.

    `dtype` is that of the factors: None for the model's, torch.int8 for quantized executions.
    """
    device, dtype = model.device.type, dtype or model.dtype
    tokens = USUAL_BUDGET.get(device, 2048) if _has_instructions(device, dtype) else 64
    once = {id(part) for module in _passed_by_one_token(model) for part in module.modules()}
    layers = Counter(
        (module.in_features, module.out_features)
        for name, module in _body(model).named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith("pooler") and id(module) not in once
    )
    products = [
        product
        for sizes, count in layers.items()
        for product in count * [_fastest_product(device, dtype, (tokens, *sizes), rounds=3)[2]]
    ]

    def one_pass() -> None:
        for product in products:
            product()
        _wait(device)

    return statistics.median(seconds({"pass": one_pass}, repeats)["pass"]) / tokens


def _body(model: PreTrainedModel) -> torch.nn.Module:
    """The module that all tokens pass: an encoder-decoder's encoder, since one token enters the decoder."""
    body: torch.nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    return body


def _passed_by_one_token(model: PreTrainedModel) -> tuple[torch.nn.Module, ...]:
    traits = packable(model)
    return of_pooled_alone(model) if isinstance(traits, Packable) and traits.pooled_alone else ()


def _has_instructions(device: str, dtype: torch.dtype) -> bool:
    """Whether products in this dtype run at full speed: large ones that a CPU emulates take minutes."""
    return device != "cpu" or dtype in (torch.float32, torch.int8, fastest_dtype(device))


def _fastest_product(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int], rounds: int
) -> tuple[float, str, Callable[[], object]]:
    """The fastest way to multiply (rows, inputs, outputs): its least seconds, its name, and one product."""
    products = ways(dtype, *shape) if device == "cpu" else {"torch": _torch_product(device, dtype, *shape)}

    def finish(way: str) -> None:
        products[way]()
        _wait(device)

    taken = seconds({way: partial(finish, way) for way in products}, rounds)
    least_s, way = min((min(each), way) for way, each in taken.items())
    return least_s, way, products[way]


def _torch_product(
    device: str, dtype: torch.dtype, rows: int, inputs: int, outputs: int
) -> Callable[[], object]:
    if dtype == torch.int8:
        numbers = partial(torch.randint, -127, 128, device=device, dtype=dtype)
        return partial(torch._int_mm, numbers((rows, inputs)), numbers((outputs, inputs)).t())
    layer = torch.nn.Linear(inputs, outputs).to(device, dtype)
    return partial(layer, torch.randn(rows, inputs).to(device, dtype))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
