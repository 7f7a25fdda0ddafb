"""A product with its bias and GELU in one Triton kernel for Hopper, so that GELU costs no pass over memory.

Programs stay and take one tile of the answer after the other. Tiles are read by TMA, or by pointers.

Shapes: T = tokens of a batch.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


class Config(NamedTuple):
    """How to launch the kernel.

    Attributes:
        block_m, block_n, block_k: rows and columns of a tile, and what is summed in a step.
        num_warps, num_stages: as Triton has them.
        per_sm: programs for each multiprocessor; 0 for one for each tile.
        flatten: whether a program begins to read its next tile before it has finished one.
        tma: whether tiles are read by TMA.
        halves: whether the two halves of a tile are finished one after the other, in less shared memory.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    per_sm: int = 1
    flatten: bool = True
    tma: bool = True
    halves: bool = True


CONFIGS: tuple[Config, ...] = (
    Config(128, 256, 64, 8, 3),
    Config(128, 256, 64, 8, 4),
    Config(128, 256, 64, 8, 3, flatten=False),
    Config(128, 128, 64, 4, 4),
    Config(128, 128, 64, 4, 3, per_sm=2),
    Config(128, 128, 64, 8, 3, per_sm=2),
    Config(128, 128, 64, 4, 3, per_sm=2, flatten=False),
    Config(128, 128, 64, 8, 3, per_sm=2, flatten=False),
    Config(128, 128, 64, 4, 3, per_sm=0, flatten=False),
    Config(128, 128, 64, 8, 3, per_sm=0, flatten=False),
    Config(128, 256, 64, 8, 3, flatten=False, tma=False),
    Config(128, 128, 64, 8, 3, per_sm=0, flatten=False, tma=False),
)
"""What is worth trying on a device."""


def product_gelu(
    hidden: Tensor, weight: Tensor, bias: Tensor, activation: str = "gelu", config: Config = CONFIGS[0]
) -> Tensor:
    """activation(hidden @ weight.T + bias), summed in float32.

    Args:
        hidden: [T, inputs] in bfloat16 or float16, with contiguous rows; inputs are a multiple of 64.
        weight: [outputs, inputs] of the same dtype, contiguous; outputs are a multiple of 128.
        bias: [outputs], of the same dtype or float32.
        activation: "gelu", with libdevice's erf; "gelu_short", with an erf of fewer instructions that is off
            by about 1.5e-7, for numbers that are finite; or "none".
        config: how to launch.

    Returns:
        [T, outputs], contiguous, in hidden's dtype.
    """
    (rows, inputs), outputs = hidden.shape, weight.shape[0]
    if inputs % config.block_k or outputs % 128 or activation not in ("none", "gelu", "gelu_short"):
        raise ValueError(f"[{rows}, {inputs}] x [{inputs}, {outputs}], {activation!r}")
    out = torch.empty((rows, outputs), dtype=hidden.dtype, device=hidden.device)
    m, n, k = config.block_m, config.block_n, config.block_k
    tiles = triton.cdiv(rows, m) * triton.cdiv(outputs, n)
    programs = min(tiles, config.per_sm * _multiprocessors(hidden)) or tiles
    columns = n // 2 if config.halves else n
    if config.tma:
        tensors = (
            TensorDescriptor.from_tensor(hidden, [m, k]), TensorDescriptor.from_tensor(weight, [n, k]),
            TensorDescriptor.from_tensor(out, [m, columns]),
        )  # fmt: skip
    else:
        tensors = (hidden, weight, out)
    _product[(programs,)](
        *tensors, bias, rows, inputs, outputs, hidden.stride(0), BLOCK_M=m, BLOCK_N=n, BLOCK_K=k,
        TMA=config.tma, FLATTEN=config.flatten, HALVES=config.halves, ACTIVATION=activation,
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    return out


def _multiprocessors(tensor: Tensor) -> int:
    if tensor.device.type != "cuda":
        return 2  # Triton's interpreter
    return torch.cuda.get_device_properties(tensor.device).multi_processor_count


@triton.jit
def _activated(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "gelu":
        return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))
    if ACTIVATION == "gelu_short":  # x - |x| erfc(|x| / sqrt(2)) / 2, by Abramowitz and Stegun 7.1.26
        size = tl.abs(x)
        u = 1.0 + 0.23164189 * size  # 0.3275911 / sqrt(2)
        t = tl.math.rsqrt(u * u)  # 1 / u takes more instructions
        tail = (
            (((0.5307027145 * t - 0.7265760135) * t + 0.7107068705) * t - 0.142248368) * t + 0.127414796
        ) * t
        tail *= tl.math.exp2(x * x * -0.7213475204444817)
        return tl.maximum(x, 0.0) - size * tail
    return x


@triton.jit
def _finish(out, acc, bias, top, left, rows, outputs, ACTIVATION: tl.constexpr, TMA: tl.constexpr):
    """Adds the bias to sums, activates and stores them; `left` is their first column."""
    column = left + tl.arange(0, acc.shape[1])
    added = tl.load(bias + column, mask=column < outputs, other=0.0).to(tl.float32)
    answer = _activated(acc + added[None, :], ACTIVATION)
    if TMA:
        out.store([top, left], answer.to(out.dtype))
    else:
        row = top + tl.arange(0, acc.shape[0])
        here = out + row.to(tl.int64)[:, None] * outputs + column[None, :]
        inside = (row[:, None] < rows) & (column[None, :] < outputs)
        tl.store(here, answer.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def _product(
    hidden, weight, out, bias, rows, inputs, outputs, hidden_row,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, TMA: tl.constexpr,
    FLATTEN: tl.constexpr, HALVES: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    GROUP: tl.constexpr = 8  # rows of tiles that are gone through together, column by column
    down, across = tl.cdiv(rows, BLOCK_M), tl.cdiv(outputs, BLOCK_N)
    for tile in tl.range(tl.program_id(0), down * across, tl.num_programs(0), flatten=FLATTEN):
        group = tile // (GROUP * across)
        height = tl.minimum(down - group * GROUP, GROUP)
        top = (group * GROUP + tile % (GROUP * across) % height) * BLOCK_M
        left = tile % (GROUP * across) // height * BLOCK_N
        acc = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
        if TMA:
            for first in range(0, inputs, BLOCK_K):
                a = hidden.load([top, first])
                b = weight.load([left, first])
                acc = tl.dot(a, b.T, acc)
        else:
            row = tl.minimum(top + tl.arange(0, BLOCK_M), rows - 1)
            column = tl.minimum(left + tl.arange(0, BLOCK_N), outputs - 1)
            depth = tl.arange(0, BLOCK_K)
            hidden_at = hidden + row.to(tl.int64)[:, None] * hidden_row + depth[None, :]
            weight_at = weight + column.to(tl.int64)[:, None] * inputs + depth[None, :]
            for first in range(0, inputs, BLOCK_K):
                a = tl.load(hidden_at + first)
                b = tl.load(weight_at + first)
                acc = tl.dot(a, b.T, acc)
        if HALVES:
            pairs = tl.permute(tl.reshape(acc, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1))
            first_half, second_half = tl.split(pairs)
            _finish(out, first_half, bias, top, left, rows, outputs, ACTIVATION, TMA)
            _finish(out, second_half, bias, top, left + BLOCK_N // 2, rows, outputs, ACTIVATION, TMA)
        else:
            _finish(out, acc, bias, top, left, rows, outputs, ACTIVATION, TMA)
