"""ONNX Runtime: on a processor, or through its CUDA provider on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ..collate import PaddedBatch
from ..errors import ExecutionError
from .runtime import OUTPUT, Session, named_inputs

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_DTYPES: Final = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.float16)}
"""Its processor kernels have no lower precision; bfloat16 lacks kernels on a GPU too."""


class OnnxRuntime:
    """ONNX Runtime; see `Runtime`."""

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse a device without a provider, and a dtype without kernels; see `Runtime`."""
        import onnxruntime

        there = onnxruntime.get_available_providers()
        provider = _PROVIDERS.get(device.type)
        if provider is None or provider not in there:
            raise ExecutionError(
                f"runtime='onnxruntime' with a model on {device} needs {provider or 'another provider'}, and "
                f"this onnxruntime has {', '.join(there)}. Install onnxruntime-gpu for CUDA, or load the "
                "model with device='cpu'."
            )
        if dtype not in _DTYPES[device.type]:
            raise ExecutionError(
                f"runtime='onnxruntime' with a model in {dtype} on {device}: it runs "
                f"{' and '.join(map(str, _DTYPES[device.type]))} there. Load the model with "
                "model_kwargs={'dtype': torch.float32}, or use runtime='torch'."
            )

    def open(self, file: Path, device: torch.device, dtype: torch.dtype, threads: int) -> Session:
        """Load an ONNX file; see `Runtime`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # as PyTorch does, matrix products in float32 are computed in float32
        cuda = {"device_id": device.index or 0, "use_tf32": 0}
        provider = (_PROVIDERS[device.type], cuda if device.type == "cuda" else {})
        session = onnxruntime.InferenceSession(file, options, providers=[provider])
        used = session.get_providers()[0]
        if used != _PROVIDERS[device.type]:  # it falls back where a provider's libraries do not load
            raise ExecutionError(
                f"runtime='onnxruntime' with a model on {device}: {_PROVIDERS[device.type]} does not load, "
                f"and {used} would run instead. Check CUDA's libraries, or load with device='cpu'."
            )
        return _Session(session, device)


class _Session:
    """Reads a batch where it stands and writes logits where they shall stand: nothing is copied."""

    def __init__(self, session: Any, device: torch.device) -> None:
        self._session, self._place = session, (device.type, device.index or 0)
        self._labels = session.get_outputs()[0].shape[1]

    def __call__(self, batch: PaddedBatch) -> Tensor:
        """Logits of a batch; see `Session`."""
        inputs, device = named_inputs(batch), batch.input_ids.device
        if device.type == "cuda":  # the session has a stream of its own
            torch.cuda.current_stream(device).synchronize()
        logits = torch.empty(batch.shape[0], self._labels, device=device)
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_input(name, *self._place, np.int64, tuple(tensor.shape), tensor.data_ptr())
        binding.bind_output(OUTPUT, *self._place, np.float32, tuple(logits.shape), logits.data_ptr())
        self._session.run_with_iobinding(binding)
        return logits
