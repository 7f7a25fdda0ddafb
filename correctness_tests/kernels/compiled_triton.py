"""Kernels in Triton as code for a GPU that is not there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")

SHARED_MEMORY = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
"""Bytes that a block may have, by compute capability."""


@contextmanager
def made_for(kernel: Any, capability: int) -> Iterator[list[Any]]:
    """Launches of a kernel inside the block compile for a GPU, and run nothing: what they compiled."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    run, made = JITFunction.run, []
    target = GPUTarget("cuda", capability, 32)
    absent = SimpleNamespace(
        get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda _: 0
    )

    def compiled(self: Any, *arguments: Any, **named: Any) -> None:
        made.append(run(self, *arguments, **named | {"warmup": True}))

    with mock.patch.object(driver, "_active", absent), mock.patch.object(JITFunction, "run", compiled):
        kernel.device_caches.clear()
        yield made
    kernel.device_caches.clear()


def usage(kernel: Any, folder: Path) -> dict[str, int]:
    """Registers, stack and local memory, by CUDA's tools, which come with Triton."""
    import triton

    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run([tool, "-res-usage", cubin], check=True, capture_output=True, text=True).stdout
    return {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
