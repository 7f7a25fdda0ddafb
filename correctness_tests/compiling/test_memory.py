"""Which errors say that memory did not suffice, and that nothing of a failed batch stays alive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from xenc.compiling.memory import memory_asked
from xenc.errors import CompileError


def raised(work) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        work()
    return caught.value


def captured() -> None:
    try:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has")
    finally:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def inside_a_compilation() -> None:
    raise BackendCompilerFailed(lambda: None, torch.OutOfMemoryError("Tried to allocate 3.50 GiB."), None)


FITS_NOT = {
    "PyTorch on a CPU": (lambda: torch.empty(1 << 50, dtype=torch.uint8), f"{1 << 50} bytes could not be"),
    "numpy": (lambda: np.full(1 << 45, 1), "256. TiB could not be"),
    "a CUDA graph's capture": (captured, "20.00 MiB could not be"),
    "a compilation": (inside_a_compilation, "3.50 GiB could not be"),
}


@pytest.mark.parametrize(("work", "asked"), FITS_NOT.values(), ids=FITS_NOT)
def test_what_could_not_be_allocated_is_quoted(work, asked):
    assert asked in memory_asked(raised(work))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(""),
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_without_an_amount_it_is_still_known(error):
    assert memory_asked(error)


def test_errors_of_other_kinds_are_none():
    mismatch = raised(lambda: torch.ones(2) @ torch.ones(3))
    capture = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    others = (mismatch, capture, CompileError("out of memory"), KeyboardInterrupt(), OSError(12, "memory"))
    assert [memory_asked(error) for error in others] == [None] * 5
    later = raised(lambda: raise_after(MemoryError("first"), LookupError("second")))
    assert memory_asked(later) is None


def raise_after(first: Exception, second: Exception) -> None:
    try:
        raise first
    except Exception:
        raise second  # noqa: B904
