"""Batches that do not fit the device's memory: which errors say so, and what can be freed."""

from __future__ import annotations

import gc
import re
from typing import Final

import torch

from ..errors import first_line

_SAYINGS: Final = (
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""In RuntimeErrors: of PyTorch's allocator on a CPU, of C++ kernels, of the driver and of cuBLAS."""

_DURING_CAPTURE: Final = "previous error during capture"
"""What the end of a CUDA graph's capture says, in place of what ended it."""

_AMOUNT: Final = re.compile(r"(?:[Tt]ried to|Unable to) allocate ([\d.,]+ ?[KMGTPE]?i?[Bb](?:ytes)?)")


def memory_asked(error: BaseException) -> str | None:
    """How much memory could not be had, as PyTorch or numpy said it; None for an error of another kind."""
    inner = getattr(error, "inner_exception", None)  # of what was run while it was being compiled
    if isinstance(inner, BaseException):
        return memory_asked(inner)
    said = str(error)
    if _DURING_CAPTURE in said and error.__context__ is not None:
        return memory_asked(error.__context__)
    known = isinstance(error, RuntimeError) and any(saying in said for saying in _SAYINGS)
    if not known and not isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return None
    amount = _AMOUNT.search(said)
    return f"{amount[1]} could not be allocated" if amount else first_line(said)


def free_memory(device: torch.device) -> None:
    """Free what nothing holds any more. Let go of the error first: its traceback holds tensors.

    Of objects that hold each other only the young ones, which are those of the pass that failed: to look at
    all of a large process takes seconds.
    """
    gc.collect(1)
    if device.type == "cuda":
        torch.cuda.empty_cache()
