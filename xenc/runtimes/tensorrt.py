"""TensorRT, as a backend of torch.compile that the package torch_tensorrt brings."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Final

import torch

from ..errors import ExecutionError

DEVICES: Final = ["cuda"]
"""Where it can run."""

OPTIONS: Final = MappingProxyType({"pass_through_build_failures": True})
"""Without this, what cannot be built runs in PyTorch and only a log line says so.

https://docs.pytorch.org/TensorRT/user_guide/compilation/torch_compile.html"""


def tensorrt_backend() -> str:
    """The backend's name; importing the package registers it."""
    import_module("torch_tensorrt")
    return "torch_tensorrt"


def check_tensorrt(device: torch.device) -> None:
    """Refuse what cannot run.

    Raises:
        ExecutionError: a device that TensorRT has no engines for.
    """
    if device.type not in DEVICES:
        raise ExecutionError(
            f"runtime='tensorrt' with a model on {device}: TensorRT runs on {', '.join(DEVICES)} only. Move "
            "the model there, or use runtime='torch'."
        )
