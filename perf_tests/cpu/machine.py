"""The machine and its load, for reports."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from xenc.gate.measuring.machine import Machine, device_name, versions

FLAGS: Final = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
    "amx_bf16",
)  # fmt: skip
"""Instructions that products of matrices are made of."""

LIBRARIES: Final = ("torchao", "openvino", "nncf", "onnx", "onnxruntime")

_OF_LSCPU: Final = ("Model name", "CPU(s)", "Thread(s) per core", "L2 cache", "L3 cache", "Hypervisor vendor")


def facts(machine: Machine) -> dict[str, Any]:
    """Name, instructions, versions, threads and load, for a report."""
    own = machine.facts()
    return {
        "device": own["device"],
        "lscpu": _lscpu(),
        "instructions": _instructions(),
        "threads": own["threads"],
        "versions": {**versions(), **{name: _version(name) for name in LIBRARIES}},
        "load_at_start": own["load_before"],
        "load_now": os.getloadavg()[0],
        "cpu_seconds": own["cpu_seconds"],
    }


def in_words() -> str:
    """The processor, its instructions and the versions, in one line."""
    used = {**versions(), **{name: _version(name) for name in ("openvino", "onnxruntime")}}
    listed = ", ".join(f"{name} {each}" for name, each in used.items())
    return f"{device_name('cpu')}; {' '.join(_instructions()) or 'no vector instructions of note'}; {listed}"


def _instructions() -> list[str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    known = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return [flag for flag in FLAGS if flag in known]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _lscpu() -> dict[str, str]:
    """Empty where there is no such command."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        said = subprocess.run(["lscpu"], capture_output=True, text=True, env=environment, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    fields = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    return {name: fields[name].strip() for name in _OF_LSCPU if name in fields}
