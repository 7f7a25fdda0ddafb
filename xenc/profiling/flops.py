"""FLOPs of a workload on a model, and the peak of a device: how far from the limit a measurement is.

Model FLOPs are those of REAL tokens: padding counts as waste, not as work. For a pair of n tokens on a
bidirectional encoder of P non-embedding parameters, l layers and hidden size h (Kaplan et al. 2020,
"Scaling Laws for Neural Language Models", table 1, without its halving for causal masks):

    FLOPs(n) = n x (2 P + 4 l h n) - (n - 1) x (2 Q + 4 h n)

The second term is what the last layer need not compute where the head reads one token of each pair
(`families.Packable.pooled_alone`): attention then has one query, and the Q parameters of the query and behind
attention are passed once. In other families it is 0. It is subtracted whether or not an execution skips that
work: skipping it shows in the seconds alone. The pooler and the head run on one token per pair and are left
out. MFU = FLOPs / (seconds x peak).

A peak is what a device reaches on one large matrix product; a model's own products are smaller. How long they
take by themselves on this device is measured: no forward pass in this dtype can be faster.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
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
    embeddings = [module for module in body.modules() if isinstance(module, torch.nn.Embedding)]
    looked_up = {id(parameter) for module in embeddings for parameter in module.parameters()}
    return sum(
        parameter.numel()
        for name, parameter in body.named_parameters()
        if not name.startswith(("embeddings.", "pooler.")) and id(parameter) not in looked_up
    )


def workload_flops(model: PreTrainedModel, token_counts: Iterable[int]) -> float:
    """FLOPs that pairs of these true token counts need, by the formula above."""
    per_token = 2 * encoder_parameters(model)
    per_attended = 4 * model.config.num_hidden_layers * model.config.hidden_size
    once = _passed_by_one_token(model)
    passed_once = 2 * sum(part.numel() for module in once for part in module.parameters())
    attended_once = 4 * model.config.hidden_size if once else 0

    def of_pair(count: int) -> int:
        needless = max(0, count - 1) * (passed_once + attended_once * count)
        return int(count * (per_token + per_attended * count) - needless)

    return float(sum(map(of_pair, token_counts)))


@cache
def device_peak(device: str, dtype: torch.dtype) -> Peak:
    """The device's dense peak: of a known GPU from its datasheet, else the fastest of five products.

    Args:
        device: "cpu" or "cuda".
        dtype: what is multiplied; int8 for executions in eight bits.
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
    """Seconds that the encoder's matrix products alone take per token, bias included: median of repeats.

    Those that one token of each pair passes are left out. Each distinct product is run on random activations,
    in the fastest way there is here, and counted as often as the encoder has it: on as many tokens as a usual
    batch has, for on fewer a GPU waits for launches, or on 64 in a dtype that a CPU emulates. Run it in
    the same process and at the same time as what it is compared with.

    Args:
        model: on its device.
        repeats: timed passes.
        dtype: what is multiplied; None for the model's, int8 for executions in eight bits.
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
    """What all tokens run through: of an encoder-decoder the encoder, since one token enters the decoder."""
    body: torch.nn.Module = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    return body


def _passed_by_one_token(model: PreTrainedModel) -> tuple[torch.nn.Module, ...]:
    """Modules of the encoder that only one token of each pair need pass."""
    traits = packable(model)
    alone = isinstance(traits, Packable) and traits.pooled_alone
    return of_pooled_alone(model) if alone else ()


def _has_instructions(device: str, dtype: torch.dtype) -> bool:
    """Whether it multiplies in this dtype at full speed: large products that a CPU emulates take minutes."""
    return device != "cpu" or dtype in (torch.float32, torch.int8, fastest_dtype(device))


def _fastest_product(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int], rounds: int
) -> tuple[float, str, Callable[[], object]]:
    """The fastest way to multiply, for (rows, inputs, outputs): its least seconds, its name, one product."""
    products = ways(dtype, *shape) if device == "cpu" else {"torch": _torch_product(device, dtype, *shape)}

    def finish(way: str) -> None:
        products[way]()
        _wait(device)

    taken = seconds({way: partial(finish, way) for way in products}, rounds)
    least = {way: min(each) for way, each in taken.items()}
    way = min(least, key=least.__getitem__)
    return least[way], way, products[way]


def _torch_product(
    device: str, dtype: torch.dtype, rows: int, inputs: int, outputs: int
) -> Callable[[], object]:
    if dtype == torch.int8:
        numbers = partial(torch.randint, -127, 128, device=device, dtype=dtype)
        left, weight = numbers((rows, inputs)), numbers((outputs, inputs))
        return lambda: torch._int_mm(left, weight.t())
    left, layer = torch.randn(rows, inputs), torch.nn.Linear(inputs, outputs)
    left, layer = left.to(device, dtype), layer.to(device, dtype)
    return lambda: layer(left)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
