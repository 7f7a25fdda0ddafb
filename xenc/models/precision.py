"""Which dtypes a device is fast in. Only the caller converts a model."""

from __future__ import annotations

import torch


def fastest_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 if the device need not emulate it, which is slow; else float16 on CUDA and float32 on a CPU.

    Example:
        >>> CrossEncoder(name, model_kwargs={"dtype": fastest_dtype("cpu")})
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if kind == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.bfloat16
    return torch.float32


def has_int8_instructions(device: str | torch.device) -> bool:
    """Whether a CPU has int8 instructions (VNNI, AMX); true for other devices."""
    if torch.device(device).type != "cpu":
        return True
    # private to PyTorch, so it may go
    known = (getattr(torch.cpu, name, None) for name in ("_is_vnni_supported", "_is_amx_tile_supported"))
    return any(supported() for supported in known if supported is not None)
