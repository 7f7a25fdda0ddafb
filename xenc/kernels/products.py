"""What multiplies by the weights of a linear layer on a processor: PyTorch, oneDNN or kernels of our own.

Which is fastest differs between processors and dtypes (MKL's float32 is slow on AMD, oneDNN knows the matrix
units of Intel's newer ones), so it is measured, once per process and dtype, in some ten milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..execution import Products
from .library import NAMESPACE, library

ACTIVATIONS: Final = ("none", "gelu", "gelu_tanh", "silu")
"""What may follow a product in the same pass, in the order of the kernel's `Activation`."""

_ONEDNN_POST: Final = {"none": ("none", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}
"""The operator's name of a post-operation, and of its form."""

_NOTABLY: Final = 1.1
"""How much faster another way must be measured to be than the one before it in the order of preference: the
choice, and with it the last bit of a score, should not differ from one process to the next."""

_ROWS, _SIZE, _ROUNDS, _LOOKS = 256, 768, 5, 3

_operators = getattr(torch.ops, NAMESPACE)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What multiplies, and why.

    Attributes:
        way: the choice.
        dtype: for which dtype.
        gflops_per_s: what each way was measured at; empty where the caller chose.
    """

    way: Products
    dtype: torch.dtype
    gflops_per_s: Mapping[str, float]

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        if not self.gflops_per_s:
            return f"{self.way} for {name}, as asked for"
        measured = ", ".join(f"{way} {speed:.0f}" for way, speed in self.gflops_per_s.items())
        return f"{self.way} for {name} (GFLOP/s: {measured})"


class Held(NamedTuple):
    """What the kernel reads of a linear layer.

    Attributes:
        weight: [panels, inputs / depth, columns of a panel, depth], in the model's dtype or in int8; outputs
            beyond the last are 0. Depth is how many inputs one instruction multiplies; see cpp/product.h.
        bias: float32 [columns of all panels].
        scales: for int8: float32 [columns], what one step of an output's weights is worth.
        sums: for int8: float32 [columns], the sum of an output's weights in steps.
    """

    weight: Tensor
    bias: Tensor
    scales: Tensor | None = None
    sums: Tensor | None = None


def kernel_weight(weight: Tensor, bias: Tensor) -> Held:
    """A layer in its own dtype, [outputs, inputs] and [outputs], in the order the kernel reads it."""
    depth = library().bfloat16_depth if weight.dtype == torch.bfloat16 else 1
    return Held(_panels(weight, depth), _padded(bias.float()))


def eight_bit_weight(weight: Tensor, bias: Tensor) -> Held:
    """A layer in eight bits: each output's weights are scaled to whole numbers from -127 to 127."""
    smallest = torch.finfo(torch.float32).tiny
    scales = weight.float().abs().amax(dim=1).clamp(min=smallest) / 127
    steps = (weight.float() / scales[:, None]).round().to(torch.int8)
    sums = steps.int().sum(dim=1).float()
    return Held(_panels(steps, 4), _padded(bias.float()), _padded(scales), _padded(sums))


def _panels(weight: Tensor, depth: int) -> Tensor:
    columns = library().panel_columns
    whole = functional.pad(weight, (0, 0, 0, -weight.shape[0] % columns))
    split = whole.view(-1, columns, weight.shape[1] // depth, depth)
    return split.permute(0, 2, 1, 3).contiguous()


def _padded(of_outputs: Tensor) -> Tensor:
    return functional.pad(of_outputs, (0, -of_outputs.shape[0] % library().panel_columns)).contiguous()


def by_kernel(left: Tensor, held: Held, outputs: int, activation: str) -> Tensor:
    """activation(left weight^T + bias) by our own kernel, summed and biased in float32.

    Args:
        left: [..., inputs], float32, bfloat16 or float16.
        held: of the same dtype, or in eight bits.
        outputs: numbers of a row of the result.
        activation: one of ACTIVATIONS.

    Returns:
        [..., outputs], in left's dtype.
    """
    result: Tensor = _operators.linear(
        left, held.weight, held.bias, held.scales, held.sums, outputs, ACTIVATIONS.index(activation)
    )
    return result


@torch.library.custom_op(f"{NAMESPACE}::onednn_linear", mutates_args=(), device_types="cpu")
def by_onednn(left: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """activation(left weight^T + bias) by oneDNN, on a weight [outputs, inputs] as it is stored."""
    post, form = _ONEDNN_POST[activation]
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, weight, bias, post, [], form)
    return result


@by_onednn.register_fake
def _(left: Tensor, weight: Tensor, *_: object) -> Tensor:
    return left.new_empty(*left.shape[:-1], weight.shape[0])


def chosen(dtype: torch.dtype, asked: Products | None) -> Chosen:
    """What multiplies in a dtype: as the caller asked, or what is fastest here; see `Execution.products`."""
    return Chosen(way=asked, dtype=dtype, gflops_per_s={}) if asked is not None else _measured(dtype)


@cache
def why_not(way: Products, dtype: torch.dtype) -> str | None:
    """Why this machine cannot multiply in a way that the caller asked for; None if it can."""
    found = ways(dtype, 16, 16, 16)
    return (
        None if way in found else f"{way} multiplies no {str(dtype).removeprefix('torch.')} on this processor"
    )


@cache
def _measured(dtype: torch.dtype) -> Chosen:
    flops = 2 * _ROWS * _SIZE * _SIZE
    found = ways(dtype, _ROWS, _SIZE, _SIZE)
    looks = []
    for _ in range(_LOOKS):
        taken = seconds(found, _ROUNDS)
        looks.append({way: flops / min(each) / 1e9 for way, each in taken.items()})
    best = {way: max(look[way] for look in looks) for way in found}
    return Chosen(way=fastest(looks), dtype=dtype, gflops_per_s=best)


def fastest(looks: Sequence[Mapping[str, float]]) -> Products:
    """The way to take: xenc, else onednn, else torch, unless every look found another one notably faster.

    Args:
        looks: of each look, the speeds by way. A busy neighbour may spoil one.
    """
    preferred: tuple[Products, ...] = ("xenc", "onednn", "torch")
    found = (way for way in preferred if way in looks[0])
    return next(way for way in found if any(look[way] * _NOTABLY >= max(look.values()) for look in looks))


@torch.no_grad()
def ways(dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> dict[str, Callable[[], object]]:
    """One product with a bias, on random numbers, in each way that a processor here has.

    Args:
        dtype: float32, bfloat16 or float16; int8 for activations in bfloat16 that are quantised on the way.
        rows: of the left operand, [rows, inputs].
        inputs: numbers of a row; a multiple of four.
        outputs: of the weight, [outputs, inputs].
    """
    eight_bits, own = dtype == torch.int8, torch.Generator()  # the process's random numbers stay as they are
    numbers = partial(torch.randn, generator=own, dtype=torch.bfloat16 if eight_bits else dtype)
    left, weight, bias = numbers(rows, inputs), numbers(outputs, inputs), numbers(outputs)
    found: dict[str, Callable[[], object]] = {}
    if not eight_bits:
        found["torch"] = lambda: functional.linear(left, weight, bias)
        found["onednn"] = lambda: by_onednn(left, weight, bias, "none")
    if library().operators is not None:
        held = (eight_bit_weight if eight_bits else kernel_weight)(weight, bias)
        found["xenc"] = lambda: by_kernel(left, held, outputs, "none")
    return {way: run for way, run in found.items() if _runs(run)}


def _runs(product: Callable[[], object]) -> bool:
    """A way that refuses the dtype is none."""
    try:
        product()
    except RuntimeError:
        return False
    return True


@torch.no_grad()
def seconds(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of so many rounds, in which each has its turn; the first, which is not counted, warms up."""
    taken: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(rounds + 1):
        for way, run in runs.items():
            started = time.perf_counter()
            run()
            taken[way].append(time.perf_counter() - started)
    return {way: each[1:] for way, each in taken.items()}
