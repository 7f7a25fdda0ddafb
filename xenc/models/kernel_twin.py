"""A twin of a model whose encoder's linear layers run in our own kernels, in oneDNN or in cuBLASLt."""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import PreTrainedModel

from ..errors import ExecutionError, NotInstalledError
from ..execution import Execution, Products
from ..kernels.layers import FUSED, KINDS, EightBitProduct, Product
from ..kernels.library import DTYPES, library
from ..kernels.products import ON_CUDA, chosen, why_not
from .families import Packable, packable
from .foreign_code import foreign_code
from .last_layer import asked_by_pooled
from .quantize import TorchaoTwin, check_device
from .replace import replace_products
from .twin import Twin

_ON_CUDA: Final = (torch.bfloat16, torch.float16)
"""Dtypes that "cublaslt" is for: float32 would show that its GELU has another form."""


class KernelTwin(Twin):
    """A twin whose encoder's linear layers run in our kernels, in oneDNN or in cuBLASLt.

    Args:
        original: an unmodified transformers model, on a CPU or, for cuBLASLt, on CUDA.
        way: "onednn", "xenc" or "cublaslt".
        eight_bits: whether to multiply int8, which only "xenc" can.
        joint: whether query, key and value are one product.

    Raises:
        ExecutionError: the model has no such layers.
    """

    def __init__(
        self, original: PreTrainedModel, way: Products, *, eight_bits: bool = False, joint: bool = True
    ) -> None:
        self._kind: type[Product] = EightBitProduct if eight_bits else KINDS[way]
        self._activations, self._joint = FUSED[way], joint
        super().__init__(original)

    def _replace(self) -> frozenset[str]:
        traits = packable(self.model)
        pooled_alone = isinstance(traits, Packable) and traits.pooled_alone
        self._products = replace_products(
            self.model, self._kind, activations=self._activations,
            apart=asked_by_pooled(self.model) if pooled_alone else None, joint=self._joint,
        )  # fmt: skip
        if not self._products:
            raise ExecutionError(f"{type(self._original).__name__} has no layers that a kernel can replace")
        return frozenset(name for one in self._products for name in one.layers)

    def _hold(self) -> None:
        for one in self._products:
            layers: list[Any] = [self._original.get_submodule(name) for name in one.layers]
            one.product.hold(layers)

    @property
    def held_bytes(self) -> int:
        """Bytes of weights that the products hold in addition to the model's own."""
        own = {part.data_ptr() for part in self._original.parameters()}
        held = (part for one in self._products for part in one.product.buffers())
        return sum(part.nbytes for part in held if part.data_ptr() not in own)

    def said_of(self, products: str) -> str:
        """How a report describes the products, with the memory they take."""
        return f"{products}; {self.held_bytes / 1e6:.1f} MB of weights held beside the model's"


def twin_for(model: PreTrainedModel, execution: Execution) -> tuple[Twin | None, str]:
    """The twin that an execution of a model runs, or None for the model itself; and how it multiplies.

    Raises:
        ExecutionError: the device, the dtype or the model does not allow for the execution's quantisation, or
            for the products that were asked for.
        NotInstalledError: a quantisation that needs torchao, which is absent.
    """
    if execution.quantize is not None:
        return _quantised(model, execution)
    asked, device = execution.products, model.device.type
    plain = _why_plain(model, execution)
    if plain is None and asked is not None and device == "cpu":
        plain = why_not(asked, model.dtype)
    if plain is not None and asked not in (None, "torch"):
        raise ExecutionError(f"products={asked!r}: {plain}. Use products=None.")
    if plain is not None:
        return None, f"torch ({plain})"
    choice = chosen(model.dtype, asked, device)
    if choice.way == "torch":
        return None, str(choice)
    try:
        twin = KernelTwin(model, choice.way)
    except ExecutionError as error:
        if asked is not None:
            raise
        return None, f"torch ({error})"
    return twin, twin.said_of(str(choice))


def _quantised(model: PreTrainedModel, execution: Execution) -> tuple[Twin, str]:
    assert execution.quantize is not None
    check_device(model, execution.quantize)
    not_ours = _why_not_our_int8(model, execution)
    if not_ours is None:
        twin = KernelTwin(model, "xenc", eight_bits=True)
        return twin, twin.said_of("xenc in int8")
    if execution.products == "xenc":
        raise ExecutionError(f"products='xenc' with quantize='int8': {not_ours}. Use products=None.")
    try:
        torchao = TorchaoTwin(model, execution.quantize)
    except NotInstalledError as error:
        raise NotInstalledError(f"{error}; xenc's own kernel cannot be used: {not_ours}") from error
    return torchao, f"torchao in {execution.quantize} ({not_ours})"


def _why_not_our_int8(model: PreTrainedModel, execution: Execution) -> str | None:
    """Why torchao has to quantise a model; None if our own kernel can."""
    if execution.quantize != "int8" or model.device.type != "cpu":
        return f"{execution.quantize} on {model.device.type} is torchao's"
    if execution.products not in (None, "xenc"):
        return f"products={execution.products!r}"
    if library().missing is not None:
        return library().missing
    return foreign_code(model) if library().has_int8 else "this processor has no VNNI"


def _why_plain(model: PreTrainedModel, execution: Execution) -> str | None:
    """Why PyTorch has to run a model's layers; None if kernels can.

    oneDNN needs the C++ library too: it detects changes of the weights that a twin has copied.
    """
    device = model.device.type
    if device == "cuda":
        return _why_plain_on_cuda(model, execution)
    if device != "cpu":
        return f"on {device}"
    if execution.products == "cublaslt":
        return "it needs CUDA, and the model is on the CPU"
    if execution.layout != "packed":
        return "our kernels are for packed batches"
    if model.dtype not in DTYPES:
        return f"no kernel for {model.dtype}"
    return foreign_code(model) or library().missing


def _why_plain_on_cuda(model: PreTrainedModel, execution: Execution) -> str | None:
    """As `_why_plain`. No C++ library is needed here."""
    way = execution.products or ON_CUDA
    if way == "torch":
        return "on cuda"
    if way != "cublaslt":
        return "it is for CPUs, and the model is on cuda"
    if execution.layout != "packed":
        return "cuBLASLt is for packed batches"
    if model.dtype not in _ON_CUDA:
        return f"cuBLASLt is for bfloat16 and float16, not {str(model.dtype).removeprefix('torch.')}"
    return foreign_code(model)
