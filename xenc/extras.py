"""Optional packages: which extra of xenc brings them, and what to say where they are absent."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from .errors import NotInstalledError

EXTRAS: Final = {
    "torchao": ("torchao",),
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "tensorrt": ("torch_tensorrt",),
}
"""By extra, as in `pip install 'xenc[onnxruntime]'`: the modules it brings."""


def missing(extra: str) -> str | None:
    """Why what an extra brings cannot be used, and the remedy; None if all of it is installed."""
    absent = [module for module in EXTRAS[extra] if find_spec(module) is None]
    return f"not installed: pip install 'xenc[{extra}]'" if absent else None


def require(extra: str, purpose: str) -> None:
    """Insist on an extra.

    Args:
        extra: its name.
        purpose: what was asked for, as the caller wrote it.

    Raises:
        NotInstalledError: one of its packages is absent.
    """
    reason = missing(extra)
    if reason is not None:
        absent = ", ".join(module for module in EXTRAS[extra] if find_spec(module) is None)
        raise NotInstalledError(f"{purpose} needs {absent}, which is {reason}")
