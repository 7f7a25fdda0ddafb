"""What a device computes fast in. Choosing it is the caller's: nothing is converted unasked."""

from __future__ import annotations

import torch


def fastest_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 where the device has instructions for it; else float16 on a GPU and float32 on a processor.

    A device without the instructions emulates bfloat16, which is slow.

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
    """Whether a processor multiplies int8 by instructions of its own (VNNI, AMX); true of other devices."""
    if torch.device(device).type != "cpu":
        return True
    # private to PyTorch, so it may go
    known = (getattr(torch.cpu, name, None) for name in ("_is_vnni_supported", "_is_amx_tile_supported"))
    return any(supported() for supported in known if supported is not None)
