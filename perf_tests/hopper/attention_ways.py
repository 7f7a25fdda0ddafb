"""Kernels for packed attention on a GPU, and how a row takes one in place of xenc's own choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from xenc.kernels import packed_attention

Attention = Callable[..., Tensor]
"""As `packed_attention.on_cuda`."""


def by_cudnn(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: tuple[Tensor, Tensor], longest: tuple[int, int],
    scale: float, causal: bool = False, window: int = packed_attention.NO_WINDOW,
) -> Tensor:  # fmt: skip
    """cuDNN's attention on ragged sequences, which has no windows."""
    assert window == packed_attention.NO_WINDOW, "cuDNN's kernel has no windows"
    attended: Tensor = torch.ops.aten._cudnn_attention_forward(
        query, key, value, None, *cu_seqlens, *longest, False, 0.0, causal, False, scale=scale
    )[0]
    return attended.contiguous()


def by_triton(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: tuple[Tensor, Tensor], longest: tuple[int, int],
    scale: float, causal: bool = False, window: int = packed_attention.NO_WINDOW,
) -> Tensor:  # fmt: skip
    """Our own kernel; see `candidates.triton_attention`."""
    from perf_tests.hopper.candidates.triton_attention import varlen_attention

    return varlen_attention(query, key, value, cu_seqlens[0], longest[0], scale, causal, window)


USUAL: Final = "FlashAttention-2"

WAYS: Final = MappingProxyType({USUAL: packed_attention.on_cuda, "cuDNN": by_cudnn, "Triton": by_triton})


@contextmanager
def attending(way: str) -> Iterator[None]:
    """Let packed attention on CUDA take a way while the block runs, in all threads."""
    usual = packed_attention.on_cuda
    packed_attention.on_cuda = WAYS[way]  # type: ignore[assignment]
    try:
        yield
    finally:
        packed_attention.on_cuda = usual  # type: ignore[assignment]
