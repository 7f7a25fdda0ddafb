"""The rows of `xenc bench`: sentence-transformers and the presets that make sense on a device, by dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import torch

from ..cross_encoder import CrossEncoder
from ..errors import ModelError
from ..models.families import unshareable
from ..models.precision import has_int8_instructions
from ..models.quantize import FLOAT8_CAPABILITY, missing_torchao
from ..presets import PRESETS

SENTENCE_TRANSFORMERS: Final = "sentence-transformers"

_ALWAYS: Final = ("packed", "packed-eager", "bucketed")


@dataclass(frozen=True)
class Row:
    """What is timed.

    Attributes:
        system: a preset's name, or SENTENCE_TRANSFORMERS for its own `predict`.
        dtype: of the model.
    """

    system: str
    dtype: torch.dtype

    @property
    def is_xenc(self) -> bool:
        """Whether it is a preset of xenc."""
        return self.system != SENTENCE_TRANSFORMERS

    @property
    def eight_bits(self) -> bool:
        """Whether its products are rounded to eight bits."""
        return self.is_xenc and PRESETS[self.system].quantize is not None

    @property
    def precision(self) -> str:
        """The dtype's name."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.system} in {self.precision}"


def presets_for(model: CrossEncoder) -> tuple[list[str], dict[str, str]]:
    """The presets that make sense for a model on its device; why each other one does not."""
    left_out = {"packed-int8": _without_int8(model.device), "packed-shared-prefix": _without_prefix(model)}
    if model.device.type == "cuda":
        left_out["packed-float8"] = _without_float8(model.device)
    chosen = [*_ALWAYS, *(name for name, why in left_out.items() if why is None)]
    return chosen, {name: why for name, why in left_out.items() if why is not None}


def rows_of(presets: Sequence[str], dtypes: Sequence[torch.dtype]) -> list[Row]:
    """sentence-transformers and the presets in each dtype."""
    rows = [Row(system, dtype) for dtype in dtypes for system in (SENTENCE_TRANSFORMERS, *presets)]
    return [row for row in rows if row.system != "packed-float8" or row.dtype == torch.bfloat16]


def said_of_openvino(device: str) -> str | None:
    """Why there is no row of OpenVINO where it could run; None if it is not installed or not on a CPU.

    sentence-transformers reaches it through Optimum alone.
    """
    if device != "cpu" or find_spec("openvino") is None:
        return None
    return (
        "sentence-transformers runs it only by way of Optimum; `make bench` in xenc's repository times it "
        "directly (perf_tests/peers/openvino.py)"
    )


def _without_int8(device: torch.device) -> str | None:
    if device.type != "cpu":
        return f"is for CPUs, and the model is on {device.type}"
    return None if has_int8_instructions(device) else "this processor has no int8 instructions (VNNI or AMX)"


def _without_float8(device: torch.device) -> str | None:
    if torch.cuda.get_device_capability(device) < FLOAT8_CAPABILITY:
        return "needs compute capability {}.{}".format(*FLOAT8_CAPABILITY)
    return missing_torchao()


def _without_prefix(model: CrossEncoder) -> str | None:
    try:
        pipeline = model.pipeline
    except ModelError as error:
        return str(error)
    return unshareable(pipeline.model, pipeline.reranker.packing)
