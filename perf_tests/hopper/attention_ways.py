"""Kernels for packed attention on a GPU, and how a row takes one in place of xenc's own choice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from unittest import mock

from xenc.kernels import packed_attention

USUAL: Final = "Triton"
"""xenc's own choice, where it runs."""

FLASH: Final = "FlashAttention-2"

WAYS: Final = (USUAL, FLASH)


@contextmanager
def attending(way: str) -> Iterator[None]:
    """Let packed attention on CUDA take a way while the block runs, in all threads."""
    if way == USUAL:
        yield
        return
    with mock.patch.object(packed_attention, "why_not_triton", return_value=f"{FLASH} was asked for"):
        yield
