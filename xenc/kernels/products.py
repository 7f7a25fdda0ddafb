"""Linear layers on a CPU by PyTorch, oneDNN or our own kernel, and the choice of what multiplies.

What is fastest differs between CPUs and dtypes (MKL's float32 is slow on AMD, oneDNN uses the matrix units of
newer Intel CPUs), so it is measured once per process and dtype, which takes about ten milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..execution import Products
from .library import NAMESPACE, library

ACTIVATIONS: Final = ("none", "gelu", "gelu_tanh", "silu")
"""Activations that a product can apply, in the order of the kernel's `Activation`."""

ON_CUDA: Final[Products] = "torch"
"""What multiplies on CUDA if the caller does not say."""

_ONEDNN_POST: Final = {"none": ("none", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}
"""oneDNN's names of an activation and its variant."""

_NOTABLY: Final = 1.1
"""How much faster a way has to be than a preferred one, so that noise does not change the choice, and with it
the last bit of scores, between processes."""

_ROWS, _SIZE, _ROUNDS, _LOOKS = 256, 768, 5, 3

_operators = getattr(torch.ops, NAMESPACE)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """How products are computed in a dtype, each way's speed if it was measured, and if not, who chose."""

    way: Products
    dtype: torch.dtype
    gflops_per_s: Mapping[str, float]
    asked: bool = True

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        if not self.gflops_per_s:
            return f"{self.way} for {name}, {'as asked for' if self.asked else 'by default'}"
        measured = ", ".join(f"{way} {speed:.0f}" for way, speed in self.gflops_per_s.items())
        return f"{self.way} for {name} (GFLOP/s: {measured})"


class Held(NamedTuple):
    """A linear layer in the kernel's layout.

    Attributes:
        weight: [panels, inputs / depth, columns of a panel, depth], in the model's dtype or int8, padded with
            zeros. Depth is the number of inputs that one instruction multiplies; see cpp/product.h.
        bias: float32 [columns of all panels]. For oneDNN, weight and bias are the layer's own.
        scales: for int8: float32 [columns], each output's quantisation step.
        sums: for int8: float32 [columns], the sum of each output's int8 weights.
    """

    weight: Tensor
    bias: Tensor | None
    scales: Tensor | None = None
    sums: Tensor | None = None


def kernel_weight(weight: Tensor, bias: Tensor | None) -> Held:
    """A layer in its own dtype, from weight [outputs, inputs] and bias [outputs]."""
    depth = library().bfloat16_depth if weight.dtype == torch.bfloat16 else 1
    return Held(_panels(weight, depth), _padded_bias(weight, bias))


def eight_bit_weight(weight: Tensor, bias: Tensor | None) -> Held:
    """A layer in int8, from weight [outputs, inputs] and bias [outputs]; weights are scaled per output."""
    smallest = torch.finfo(torch.float32).tiny
    scales = weight.float().abs().amax(dim=1).clamp(min=smallest) / 127
    steps = (weight.float() / scales[:, None]).round().to(torch.int8)
    sums = steps.int().sum(dim=1).float()
    return Held(_panels(steps, 4), _padded_bias(weight, bias), _padded(scales), _padded(sums))


def _panels(weight: Tensor, depth: int) -> Tensor:
    columns = library().panel_columns
    whole = functional.pad(weight, (0, 0, 0, -weight.shape[0] % columns))
    split = whole.view(-1, columns, weight.shape[1] // depth, depth)
    return split.permute(0, 2, 1, 3).contiguous()


def _padded(of_outputs: Tensor) -> Tensor:
    return functional.pad(of_outputs, (0, -of_outputs.shape[0] % library().panel_columns)).contiguous()


def _padded_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    return _padded((weight.new_zeros(weight.shape[0]) if bias is None else bias).float())


def by_kernel(left: Tensor, held: Held, outputs: int, activation: str) -> Tensor:
    """activation(left weight^T + bias) by our own kernel, accumulated in float32.

    Args:
        left: [..., inputs], float32, bfloat16 or float16.
        held: a layer of the same dtype, or in int8.
        outputs: the layer's.
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
    """activation(left weight^T + bias) by oneDNN, for a weight [outputs, inputs]."""
    post, form = _ONEDNN_POST[activation]
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, weight, bias, post, [], form)
    return result


@by_onednn.register_fake
def _(left: Tensor, weight: Tensor, *_: object) -> Tensor:
    return left.new_empty(*left.shape[:-1], weight.shape[0])


def chosen(dtype: torch.dtype, asked: Products | None, device: str = "cpu") -> Chosen:
    """The way that the caller asked for, or a CPU's fastest, or CUDA's default; see `Execution.products`."""
    if asked is None and device == "cpu":
        return _measured(dtype)
    return Chosen(way=asked or ON_CUDA, dtype=dtype, gflops_per_s={}, asked=asked is not None)


@cache
def why_not(way: Products, dtype: torch.dtype) -> str | None:
    """Why this machine cannot multiply in a way that the caller asked for; None if it can."""
    if way in ways(dtype, 16, 16, 16):
        return None
    return f"{way} multiplies no {str(dtype).removeprefix('torch.')} on this processor"


@cache
def _measured(dtype: torch.dtype) -> Chosen:
    gflops = 2 * _ROWS * _SIZE * _SIZE / 1e9
    found = ways(dtype, _ROWS, _SIZE, _SIZE)
    measured = (seconds(found, _ROUNDS) for _ in range(_LOOKS))
    looks = [{way: gflops / min(each) for way, each in taken.items()} for taken in measured]
    best = {way: max(look[way] for look in looks) for way in found}
    return Chosen(way=fastest(looks), dtype=dtype, gflops_per_s=best, asked=False)


def fastest(looks: Sequence[Mapping[str, float]]) -> Products:
    """The first of xenc, onednn and torch that, in some measurement, no other way was notably faster than.

    Args:
        looks: the speeds by way of each measurement; other load on the machine may distort some.
    """
    preferred: tuple[Products, ...] = ("xenc", "onednn", "torch")
    found = (way for way in preferred if way in looks[0])
    return next(way for way in found if any(look[way] * _NOTABLY >= max(look.values()) for look in looks))


@torch.no_grad()
def ways(dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> dict[str, Callable[[], object]]:
    """One product with a bias, on random numbers, in each way that this machine has.

    Args:
        dtype: float32, bfloat16 or float16; int8 for bfloat16 activations that are quantised in the product.
        rows: of the left operand, [rows, inputs].
        inputs: a multiple of four.
        outputs: of the weight, [outputs, inputs].
    """
    eight_bits, own = dtype == torch.int8, torch.Generator()  # leaves the process's generator alone
    numbers = partial(torch.randn, generator=own, dtype=torch.bfloat16 if eight_bits else dtype)
    left, weight, bias = numbers(rows, inputs), numbers(outputs, inputs), numbers(outputs)
    known: dict[str, Callable[[], object]] = {}
    if not eight_bits:
        known["torch"] = lambda: functional.linear(left, weight, bias)
        known["onednn"] = lambda: by_onednn(left, weight, bias, "none")
    if library().operators is not None:
        held = (eight_bit_weight if eight_bits else kernel_weight)(weight, bias)
        known["xenc"] = lambda: by_kernel(left, held, outputs, "none")
    found = {}
    for way, run in known.items():
        with suppress(RuntimeError):  # the dtype is not supported
            run()
            found[way] = run
    return found


@torch.no_grad()
def seconds(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one round that is not counted. The runs take turns."""
    taken: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(rounds + 1):
        for way, run in runs.items():
            started = time.perf_counter()
            run()
            taken[way].append(time.perf_counter() - started)
    return {way: each[1:] for way, each in taken.items()}
