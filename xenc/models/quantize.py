"""A twin of a model, quantised by torchao: the encoder's matrix products in eight bits, the rest shared.

Weights are scaled per row once, activations per token in each pass, so rounding depends only on the token
itself and there is nothing to calibrate (dynamic quantisation as in LLM.int8(),
https://arxiv.org/abs/2208.07339, without its outlier decomposition).

Only the Linear layers of the repeated blocks are quantised. They are nearly all of the arithmetic, and the
head, which runs once per pair, would only round the score.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch.nn import Linear, ModuleList, Parameter
from transformers import PreTrainedModel

from ..errors import ExecutionError, NotInstalledError
from ..execution import Quantization
from .precision import has_int8_instructions
from .twin import Twin

logger = logging.getLogger(__name__)

FLOAT8_CAPABILITY: Final = (8, 9)
"""The first compute capability with float8 matrix products."""


class TorchaoTwin(Twin):
    """A twin whose encoder torchao has quantised.

    Args:
        original: is not changed.
        kind: "int8" or "float8".

    Raises:
        ExecutionError: the device, the dtype or the shape of a layer does not allow for it.
        NotInstalledError: torchao is absent.
    """

    def __init__(self, original: PreTrainedModel, kind: Quantization) -> None:
        check_device(original, kind)
        if (reason := missing_torchao()) is not None:
            raise NotInstalledError(f"quantize={kind!r} needs torchao, which is {reason}")
        self._config, self._kind = _torchao_config(kind), kind
        super().__init__(original)

    def _replace(self) -> frozenset[str]:
        names = {id(module): name for name, module in self._original.named_modules()}
        quantised = frozenset(names[id(layer)] for layer in encoder_layers(self._original))
        if not quantised:
            raise ExecutionError(
                f"quantize={self._kind!r}: {type(self._original).__name__} has no blocks of Linear layers. "
                "Use quantize=None."
            )
        return quantised

    def _hold(self) -> None:
        for name in self._held:
            module, twin = self._original.get_submodule(name), self.model.get_submodule(name)
            twin._parameters.update(module._parameters)
            twin._parameters["weight"] = self._quantised(name, module._parameters.get("weight"))

    def _quantised(self, name: str, weight: Parameter | None) -> Parameter:
        from torchao.quantization import quantize_

        if weight is None:
            raise ExecutionError(
                f"quantize={self._kind!r}: {name} has no weight of its own, as under weight_norm. "
                "Remove what computes it (remove_weight_norm), or use quantize=None."
            )
        holder = Linear(1, 1, bias=False, device="meta")  # quantize_ changes a layer in place
        holder.weight = Parameter(weight.detach(), requires_grad=False)
        quantize_(holder, self._config)
        if type(holder.weight) is Parameter:
            raise ExecutionError(
                f"quantize={self._kind!r}: torchao leaves {name} of shape {tuple(weight.shape)} "
                f"in {weight.dtype}. Use quantize=None."
            )
        return holder.weight


def missing_torchao() -> str | None:
    """Why torchao cannot be used, and the remedy; None if it is installed."""
    return None if find_spec("torchao") else "not installed: pip install 'xenc[torchao]'"


def encoder_layers(model: PreTrainedModel) -> list[Linear]:
    """The Linear layers in the base model's repeated blocks, each once."""
    blocks = (module for module in model.base_model.modules() if isinstance(module, ModuleList))
    layers = {id(layer): layer for block in blocks for layer in block.modules() if type(layer) is Linear}
    return list(layers.values())


def _torchao_config(kind: Quantization) -> Any:
    """Scales per row and per token; `set_inductor_config` would change settings of the whole process."""
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int8DynamicActivationInt8WeightConfig,
        PerRow,
    )

    if kind == "int8":  # torchao 0.17 defaults to an older version
        return Int8DynamicActivationInt8WeightConfig(version=2, set_inductor_config=False)
    return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)


def check_device(model: PreTrainedModel, kind: Quantization) -> None:
    """Raise ExecutionError if the model's device or dtype does not allow for a quantisation."""
    device = model.device
    if kind == "int8" and device.type == "cuda":
        raise ExecutionError(
            "quantize='int8' does not run on CUDA: PyTorch's int8 products need more than 16 rows there, and "
            "the last layer may have fewer. Use quantize='float8' with a bfloat16 model, or quantize=None."
        )
    if kind == "int8":
        if device.type == "cpu" and not _products_are_exact():
            raise ExecutionError(
                "quantize='int8': sums of int8 products overflow on this processor. Use quantize=None."
            )
        if not has_int8_instructions(device):
            _warn_slow(str(device))
        return
    if device.type != "cuda":
        raise ExecutionError(
            f"quantize='float8' needs CUDA, and the model is on {device}. Use quantize='int8', or "
            "quantize=None."
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < FLOAT8_CAPABILITY:
        raise ExecutionError(
            f"quantize='float8' needs compute capability 8.9, and {torch.cuda.get_device_name(device)} "
            f"({device}) has {capability[0]}.{capability[1]}. Use quantize=None."
        )
    if model.dtype != torch.bfloat16:
        raise ExecutionError(
            f"quantize='float8' needs a model in bfloat16, and this one is in {model.dtype}. "
            'Load it with model_kwargs={"dtype": torch.bfloat16}.'
        )


@cache
def _warn_slow(device: str) -> None:
    logger.warning(
        "%s has no int8 instructions (VNNI, AMX): quantize='int8' is slower here than quantize=None", device
    )


def _products_are_exact() -> bool:
    """False on CPUs without VNNI that sum pairs of int8 products in 16 bits.

    See "Int8 Computation Aspects" in oneDNN's documentation.
    """
    largest = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest) == 64 * 127 * 127).all())
