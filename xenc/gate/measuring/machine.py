"""The machine: its name, versions, load, clocks and throttling. All of it is read, nothing is set."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

_SLOWED_DOWN: Final = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's throttle reasons (nvmlClocksEventReasons) that count as throttling. The power cap does not: large
matrix products always reach it."""

_POWER_CAP: Final = 0x04


def device_name(device: str) -> str:
    """The GPU's name, or the processor's name and torch's number of threads. A baseline belongs to one."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.get_num_threads()} threads"


@cache
def devices() -> dict[str, str]:
    """The name of each available device, by torch's device type."""
    present = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return {device: device_name(device) for device in present}


_PACKAGES: Final = ("numpy", "triton", "transformers", "tokenizers", "sentence-transformers", "torchao")

_VARIABLES: Final = re.compile(
    r"(TORCH|PYTORCH_|CUDA_|NCCL_|CUBLAS|OMP_|KMP_|GOMP_|MKL_|ONEDNN_|DNNL_|ATEN_|MALLOC|LD_PRELOAD$|"
    r"TOKENIZERS_PARALLELISM$|NVIDIA_TF32)"
)
_FOLDERS: Final = re.compile(r"(_DIR|_DIRS|_PATH|_HOME|_ROOT|_LOGS|_DEBUG)$")
"""Variables that say where something lies, which changes no timing."""


def versions() -> dict[str, str]:
    """What of the software can change a timing, by name: versions, and environment variables that are set."""
    variables = {name: value for name, value in os.environ.items() if _VARIABLES.match(name)}
    return _installed() | {name: value for name, value in variables.items() if not _FOLDERS.search(name)}


@cache
def _installed() -> dict[str, str]:
    found = {"torch": str(torch.__version__)}  # unlike the package's metadata, it names the build
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    found["python"] = platform.python_version()
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        found["driver"] = _driver()
    return found


def _driver() -> str:
    nvml, _ = _nvml()
    return "unknown" if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


class Machine:
    """Observes a device while blocks run on it: throttling, clocks, and CPU load since construction.

    Args:
        device: torch's device type, "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._nvml: Any
        self._handle: Any
        self._nvml, self._handle = _nvml() if device == "cuda" else (None, None)
        self._load_before, self._busy_before = os.getloadavg()[0], _busy_seconds()
        self._clocks: list[int] = []
        self._watts: list[int] = []
        self._capped = 0
        self._reasons: set[str] = set()

    def throttled(self) -> bool:
        """Whether the device is throttling now; False on a CPU and without NVML."""
        if self._nvml is None:
            return False
        self._clocks.append(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM))
        with suppress(self._nvml.NVMLError):  # not every GPU measures its power
            self._watts.append(round(self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000))
        mask = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        self._capped += bool(mask & _POWER_CAP)
        found = {name for bit, name in _SLOWED_DOWN.items() if mask & bit}
        self._reasons |= found
        return bool(found)

    def facts(self) -> dict[str, Any]:
        """Name, versions, threads, other load, and a GPU's clocks, power and throttling, by name."""
        own, other, stolen = (
            after - before for after, before in zip(_busy_seconds(), self._busy_before, strict=True)
        )
        facts: dict[str, Any] = {
            "device": device_name(self._device),
            **versions(),
            "threads": torch.get_num_threads(),
            "load_before": self._load_before,
            "cpu_seconds": {
                "own": round(own, 2),
                "others": round(other - own, 2),
                "stolen": round(stolen, 2),
            },
        }
        if self._device == "cuda":
            facts |= self._gpu_facts()
        return facts

    def _gpu_facts(self) -> dict[str, Any]:
        flags: Any = torch.backends.cuda
        enabled = {
            "flash": flags.flash_sdp_enabled(),
            "memory-efficient": flags.mem_efficient_sdp_enabled(),
            "cuDNN": flags.cudnn_sdp_enabled(),
            "math": flags.math_sdp_enabled(),
        }
        facts: dict[str, Any] = {"sdpa_backends": [name for name, on in enabled.items() if on]}
        if self._nvml is None:
            return {**facts, "clocks": "unknown, throttling is not detected: NVML is missing (nvidia-ml-py)"}
        processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        others = [process.pid for process in processes if process.pid != os.getpid()]
        return {
            **facts,
            "sm_clocks_mhz": _lowest_and_highest(self._clocks),
            "watts": _lowest_and_highest(self._watts),
            "at_the_power_cap": f"{self._capped} of {len(self._clocks)} looks",
            "throttled_by": sorted(self._reasons),
            "other_processes": len(others),
        }


def _lowest_and_highest(seen: list[int]) -> list[int]:
    return [min(seen), max(seen)] if seen else []


def _nvml() -> tuple[Any, Any]:
    """NVML and the handle of torch's current device; (None, None) without the library or the driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except Exception:  # NVML has an error class of its own for every cause
        return None, None


def _busy_seconds() -> tuple[float, float, float]:
    """CPU seconds so far: of this process, of all processes, and stolen by the host.

    Without /proc/stat the second equals the first, and the third is 0.
    """
    own = sum(os.times()[:2])
    try:
        fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return own, own, 0.0
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _idle, _iowait, irq, softirq, stolen = fields[:8]
    return own, (user + nice + system + irq + softirq) / tick, stolen / tick


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.processor() or platform.machine()} ({capability})"
