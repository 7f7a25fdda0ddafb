"""What there is for xenc to run on: devices, versions, compilers, caches; and a trial of each compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch
from huggingface_hub import constants as hub

from ..errors import first_line
from ..kernels import library as kernels
from ..models.precision import fastest_dtype
from . import machine

MINIMUM: Final = {"torch": "2.11", "transformers": "5.17", "sentence-transformers": "6.0"}
"""The oldest versions that xenc supports."""

OPTIONAL: Final = ("torchao", "pyarrow", "matplotlib", "openvino", "ray")

_DRIVER: Final = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """All that was looked at.

    Attributes:
        device: torch's type of the device that is used if none is named.
        gpus: names of the CUDA devices.
        unused_gpu: whether there is an NVIDIA driver, and this torch cannot use it.
        processor, instructions, hidden: its name, its instruction sets that matter, and the variable that
            hides some of them from torch ("" if none does).
        cores, threads: that the process may use; that torch uses.
        memory_bytes: of the machine or container.
        versions: of Python, of the packages in MINIMUM, CUDA and Triton; None where absent.
        compiler: the C++ compiler that is asked for (c++, or CXX), its path, and the version that it says.
        ninja: where it is, or None.
        kernels_file, were_built: where the C++ kernels are kept; whether they were there before.
        kernels_missing, kernels_s: why they could not be built or loaded, and how long that took.
        compile_fails, compile_s: why torch.compile does not work, and how long a small function took.
        inductor_cache, hub_cache: folders.
        offline: whether HF_HUB_OFFLINE keeps models from being fetched.
        optional: versions of the packages in OPTIONAL.
        fastest_dtype: of the device.
    """

    device: str
    gpus: tuple[str, ...]
    unused_gpu: bool
    processor: str
    instructions: tuple[str, ...]
    hidden: str
    cores: int
    threads: int
    memory_bytes: int
    versions: Mapping[str, str | None]
    compiler: tuple[str, str | None, str]
    ninja: str | None
    kernels_file: str
    were_built: bool
    kernels_missing: str | None
    kernels_s: float
    compile_fails: str | None
    compile_s: float
    inductor_cache: str
    hub_cache: str
    offline: bool
    optional: Mapping[str, str | None]
    fastest_dtype: str


def checkup() -> Checkup:
    """Look at everything. Builds the C++ kernels if they are not built, and compiles a small function."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    were_built, started = kernels.is_built(), time.perf_counter()
    missing, kernels_s = kernels.library().missing, time.perf_counter() - started
    fails, compile_s = try_to_compile(device)
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Checkup(
        device=device,
        gpus=tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())),
        unused_gpu=_DRIVER.exists() and device == "cpu",
        processor=machine.processor(), instructions=machine.instructions(), hidden=_hidden(),
        cores=machine.cores(), threads=torch.get_num_threads(), memory_bytes=machine.memory_bytes(),
        versions={
            "python": sys.version.split()[0], **{name: installed(name) for name in MINIMUM},
            "cuda": torch.version.cuda, "triton": installed("triton"),
        },
        compiler=compiler(), ninja=_ninja(),
        kernels_file=str(kernels.file_of(kernels.name())), were_built=were_built,
        kernels_missing=missing, kernels_s=kernels_s, compile_fails=fails, compile_s=compile_s,
        inductor_cache=cache_dir(), hub_cache=str(hub.HF_HUB_CACHE), offline=bool(hub.HF_HUB_OFFLINE),
        optional={name: installed(name) for name in OPTIONAL},
        fastest_dtype=str(fastest_dtype(device)).removeprefix("torch."),
    )  # fmt: skip


def installed(name: str) -> str | None:
    """A package's version; None if it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def compiler() -> tuple[str, str | None, str]:
    """The C++ compiler of the kernels: its name, its path (None if it is not there), what it says it is."""
    name = os.environ.get("CXX") or "c++"
    path, says = shutil.which(name), ""
    if path is not None:
        with suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
            says = first_line(said.stdout)
    return name, path, says


def try_to_compile(device: str) -> tuple[str | None, float]:
    """Compile a small function anew, past all caches. Why that fails, or None; and the seconds it took."""

    def function(number: torch.Tensor) -> torch.Tensor:
        return (number.sin() + 1).relu()

    started = time.perf_counter()
    try:
        with warnings.catch_warnings(), torch._inductor.config.patch(force_disable_caches=True):
            warnings.simplefilter("ignore")
            torch.compile(function, fullgraph=True)(torch.ones(64, device=device))
    except Exception as error:
        return _main_line(error), time.perf_counter() - started
    return None, time.perf_counter() - started


def _main_line(error: Exception) -> str:
    """The first line of what a compiler complained about, or of the error."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if "error:" in line), first_line(error))


def _ninja() -> str | None:
    found = shutil.which("ninja")
    if found is None and find_spec("ninja") is not None:
        return "the package"
    return found


def _hidden() -> str:
    """ATEN_CPU_CAPABILITY, if it keeps torch from instructions that the processor has."""
    asked = os.environ.get("ATEN_CPU_CAPABILITY", "")
    wide = "avx512f" in machine.instructions() and torch.backends.cpu.get_cpu_capability() != "AVX512"
    return f"ATEN_CPU_CAPABILITY={asked}" if asked and wide else ""
