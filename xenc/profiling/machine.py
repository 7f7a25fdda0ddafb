"""The machine as xenc sees it: processor, memory, threads. All of it is read, nothing is set."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import torch

INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")
"""Those that make a difference to xenc, by Linux's names."""

_CPUINFO: Final = Path("/proc/cpuinfo")
_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def processor() -> str:
    """The processor's name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def instructions() -> tuple[str, ...]:
    """Those of INSTRUCTIONS that the processor has; () where Linux does not say."""
    flags = _cpuinfo().get("flags", "").split()
    return tuple(name for name in INSTRUCTIONS if name in flags)


def cores() -> int:
    """Cores that this process may use."""
    with suppress(AttributeError):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes(device: str = "cpu") -> int:
    """Memory of the device: a GPU's, or this machine's, or a container's if that is less."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(torch.device(device))[1])
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            found = min(found, int(file.read_text()))
    return found


def described(device: torch.device) -> str:
    """Device, threads and torch, in a sentence."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return f"On {device.type} ({name}, {torch.get_num_threads()} CPU threads), torch {torch.__version__}."


@cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor."""
    try:
        lines = _CPUINFO.read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return {}
    fields = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in fields}
