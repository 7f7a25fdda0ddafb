"""OpenVINO, on a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ..collate import PaddedBatch
from ..errors import ExecutionError
from .runtime import OUTPUT, Session, named_inputs

_HINTS: Final = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}

_CAPABILITIES: Final = {torch.float32: "FP32", torch.bfloat16: "BF16", torch.float16: "FP16"}


class OpenVino:
    """OpenVINO; see `Runtime`."""

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse other devices than processors, and a dtype that this one would emulate; see `Runtime`."""
        import openvino

        if device.type != "cpu":
            raise ExecutionError(
                f"runtime='openvino' with a model on {device}: it runs on processors here. Load the model "
                "with device='cpu', or use runtime='torch'."
            )
        capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if _CAPABILITIES.get(dtype) not in capable:
            raise ExecutionError(
                f"runtime='openvino' with a model in {dtype}: this processor has no instructions for it, and "
                "OpenVINO would compute in float32. Load the model with model_kwargs={'dtype': "
                "torch.float32}, or use runtime='torch'."
            )

    def open(self, file: Path, device: torch.device, dtype: torch.dtype, threads: int) -> Session:
        """Load an ONNX file; see `Runtime`."""
        import openvino

        configuration = {
            "INFERENCE_PRECISION_HINT": _HINTS[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, which all threads share
            "ENABLE_CPU_PINNING": False,  # two models would be pinned to the same cores
        }
        compiled = openvino.Core().compile_model(file, device.type.upper(), configuration)
        return _Session(compiled.create_infer_request())


class _Session:
    """Reads a batch where it stands; the logits are copied out before the next batch overwrites them."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def __call__(self, batch: PaddedBatch) -> Tensor:
        """Logits of a batch; see `Session`."""
        arrays = {name: tensor.numpy() for name, tensor in named_inputs(batch).items()}
        return torch.from_numpy(self._request.infer(arrays, share_inputs=True)[OUTPUT])
