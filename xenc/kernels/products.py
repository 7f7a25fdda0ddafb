"""What multiplies by the weights of a linear layer on a processor: PyTorch, oneDNN or kernels of our own.

Which is fastest differs between processors and dtypes (MKL's float32 is slow on AMD, oneDNN knows the matrix
units of Intel's newer ones), so it is measured, once per process and dtype, in some ten milliseconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from ..execution import Products
from .library import NAMESPACE, library

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
"""What there are kernels for."""

ACTIVATIONS: Final = ("none", "gelu", "gelu_tanh", "silu")
"""What may follow a product in the same pass, in the order of the kernel's `Activation`."""

_ONEDNN_POST: Final = {"none": ("none", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}
"""The operator's name of a post-operation, and of its form."""

_NOTABLY: Final = 1.1
"""How much faster another way must be measured to be than the one before it in the order of preference: the
choice, and with it the last bit of a score, should not differ from one process to the next."""

_ROWS, _SIZE, _ROUNDS = 512, 768, 7

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


def panels(weight: Tensor, depth: int) -> Tensor:
    """A weight in the order in which the kernel reads it.

    Args:
        weight: [outputs, inputs], where depth divides inputs.
        depth: how many inputs one instruction multiplies; see cpp/product.h.

    Returns:
        [panels, inputs / depth, columns of a panel, depth]; outputs beyond the last are 0.
    """
    columns = library().panel_columns
    whole = functional.pad(weight, (0, 0, 0, -weight.shape[0] % columns))
    split = whole.view(-1, columns, weight.shape[1] // depth, depth)
    return split.permute(0, 2, 1, 3).contiguous()


def depth_of(dtype: torch.dtype) -> int:
    """How many inputs of this dtype one instruction of the kernel multiplies."""
    depths = {torch.bfloat16: library().bfloat16_depth, torch.int8: 4}
    return depths.get(dtype, 1)


def padded_to_panels(of_columns: Tensor) -> Tensor:
    """[outputs] -> [columns of whole panels], 0 beyond the last."""
    return functional.pad(of_columns, (0, -of_columns.shape[0] % library().panel_columns)).contiguous()


def by_kernel(
    left: Tensor, weight: Tensor, bias: Tensor, outputs: int, activation: str,
    scales: Tensor | None = None, sums: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """activation(left weight^T + bias) by our own kernel, summed and biased in float32.

    Args:
        left: [..., inputs], float32, bfloat16 or float16.
        weight: `panels` of the same dtype, or of int8.
        bias: float32, `padded_to_panels`.
        outputs: numbers of a row of the result.
        activation: one of ACTIVATIONS.
        scales: for int8: float32, of each output what one step of its weights is worth.
        sums: for int8: float32, of each output the sum of its weights in steps.

    Returns:
        [..., outputs], in left's dtype.
    """
    result: Tensor = _operators.linear(
        left, weight, bias, scales, sums, outputs, ACTIVATIONS.index(activation)
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
def _measured(dtype: torch.dtype) -> Chosen:
    flops = 2 * _ROWS * _SIZE * _SIZE
    speeds = {way: flops / seconds / 1e9 for way, seconds in _seconds(_candidates(dtype)).items()}
    return Chosen(way=fastest(speeds), dtype=dtype, gflops_per_s=speeds)


def fastest(speeds: Mapping[str, float]) -> Products:
    """The way to take, of those measured: xenc, onednn, torch, unless a later one is notably faster."""
    best: Products = "torch"
    ways: tuple[Products, ...] = ("torch", "onednn", "xenc")
    for way in ways:
        if way in speeds and speeds[way] * _NOTABLY >= speeds[best]:
            best = way
    return best


@torch.no_grad()
def _candidates(dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """One product in each way there is; a way that refuses the dtype is none."""
    left = torch.randn(_ROWS, _SIZE, dtype=dtype)
    weight, bias = torch.randn(_SIZE, _SIZE, dtype=dtype), torch.randn(_SIZE, dtype=dtype)
    ways: dict[str, Callable[[], object]] = {"torch": lambda: functional.linear(left, weight, bias)}
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        ways["onednn"] = lambda: by_onednn(left, weight, bias, "none")
    if library().operators is not None:
        packed, padded = panels(weight, depth_of(dtype)), padded_to_panels(bias.float())
        ways["xenc"] = lambda: by_kernel(left, packed, padded, _SIZE, "none")
    return {way: run for way, run in ways.items() if _runs(run)}


def _runs(product: Callable[[], object]) -> bool:
    try:
        product()
    except RuntimeError:
        return False
    return True


@torch.no_grad()
def _seconds(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The median of a few rounds in which each way has its turn."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_ROUNDS):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            taken[way].append(time.perf_counter() - started)
    return {way: statistics.median(seconds) for way, seconds in taken.items()}
