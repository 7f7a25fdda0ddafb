"""A twin of a model whose encoder multiplies by other means than PyTorch's."""

from __future__ import annotations

import logging
from typing import Final

import torch
from transformers import PreTrainedModel

from ..errors import ExecutionError, NotInstalledError
from ..execution import Execution, Products
from ..kernels.layers import KINDS, EightBitProduct, Product
from ..kernels.library import DTYPES, library
from ..kernels.products import ACTIVATIONS, Chosen, chosen, why_not
from .families import Packable, packable
from .foreign_code import foreign_code
from .last_layer import asked_by_pooled
from .quantize import TorchaoTwin, check_device
from .replace import replace_products
from .twin import Twin

logger = logging.getLogger(__name__)

_ONEDNN_ACTIVATIONS: Final = frozenset(ACTIVATIONS) - {"silu"}


class KernelTwin(Twin):
    """A twin whose encoder's linear layers are our kernel's, or oneDNN's.

    Args:
        original: on a processor, as transformers made it.
        way: what multiplies, "onednn" or "xenc".
        eight_bits: whether in eight bits, which is "xenc" alone.

    Raises:
        ExecutionError: the model has no such layers.
    """

    def __init__(self, original: PreTrainedModel, way: Products, *, eight_bits: bool = False) -> None:
        self._kind: type[Product] = EightBitProduct if eight_bits else KINDS[way]
        self._activations = _ONEDNN_ACTIVATIONS if way == "onednn" else frozenset(ACTIVATIONS)
        super().__init__(original)

    def _replace(self) -> frozenset[str]:
        traits = packable(self.model)
        alone = isinstance(traits, Packable) and traits.pooled_alone
        self._products = replace_products(
            self.model, self._kind, activations=self._activations,
            apart=asked_by_pooled(self.model) if alone else None,
        )  # fmt: skip
        if not self._products:
            raise ExecutionError(f"{type(self._original).__name__} has no layers that a kernel can stand for")
        return frozenset(name for one in self._products for name in one.layers)

    def _hold(self) -> None:
        for one in self._products:
            one.product.hold([self._layer(name) for name in one.layers])

    def _layer(self, name: str) -> torch.nn.Linear:
        layer = self._original.get_submodule(name)
        assert isinstance(layer, torch.nn.Linear)
        return layer

    @property
    def held_bytes(self) -> int:
        """What the products hold beside the model's own weights."""
        own = {part.data_ptr() for part in self._original.parameters()}
        held = (part for one in self._products for part in one.product.buffers())
        return sum(part.nbytes for part in held if part.data_ptr() not in own)


def twin_for(model: PreTrainedModel, execution: Execution) -> tuple[Twin | None, str]:
    """The twin that an execution of a model runs on, or None for the model itself; and what multiplies.

    Raises:
        ExecutionError: a quantisation that the device, the dtype or the model does not allow for.
        NotInstalledError: a quantisation that needs torchao, which is absent.
    """
    if execution.quantize is not None:
        return _quantised(model, execution)
    plain = _why_plain(model, execution)
    if plain is None and execution.products is not None:
        plain = why_not(execution.products, model.dtype)
    if plain is not None and execution.products in ("onednn", "xenc"):
        raise ExecutionError(f"products={execution.products!r}: {plain}. Use products=None.")
    if plain is not None:
        return None, f"torch ({plain})"
    choice = chosen(model.dtype, execution.products)
    if choice.way == "torch":
        return None, str(choice)
    try:
        twin = KernelTwin(model, choice.way)
    except ExecutionError as error:
        if execution.products is not None:
            raise
        return None, f"torch ({error})"
    return twin, _said(choice, twin)


def _quantised(model: PreTrainedModel, execution: Execution) -> tuple[Twin, str]:
    assert execution.quantize is not None
    check_device(model, execution.quantize)
    not_ours = _why_not_our_int8(model, execution)
    if not_ours is None:
        twin = KernelTwin(model, "xenc", eight_bits=True)
        return twin, f"xenc in int8; {_megabytes(twin)}"
    if execution.products == "xenc":
        raise ExecutionError(f"products='xenc' with quantize='int8': {not_ours}. Use products=None.")
    try:
        torchao = TorchaoTwin(model, execution.quantize)
    except NotInstalledError as error:
        raise NotInstalledError(f"{error}; xenc's own kernel cannot be used: {not_ours}") from error
    return torchao, f"torchao in {execution.quantize} ({not_ours})"


def _why_not_our_int8(model: PreTrainedModel, execution: Execution) -> str | None:
    """Why a model is quantised by torchao; None if our own kernel can."""
    if execution.quantize != "int8" or model.device.type != "cpu":
        return f"{execution.quantize} on {model.device.type} is torchao's"
    if execution.products not in (None, "xenc"):
        return f"products={execution.products!r}"
    if library().missing is not None:
        return library().missing
    return foreign_code(model) if library().has_int8 else "this processor has no VNNI"


def _why_plain(model: PreTrainedModel, execution: Execution) -> str | None:
    """Why a model's layers are left to PyTorch; None if they need not be.

    Without the C++ library they are, since it also watches what other ways hold of the weights.
    """
    if model.device.type != "cpu":
        return f"on {model.device.type}"
    if execution.layout != "packed":
        return "our kernels are for packed batches"
    if model.dtype not in DTYPES:
        return f"no kernel for {model.dtype}"
    return foreign_code(model) or library().missing


def _said(choice: Chosen, twin: KernelTwin) -> str:
    return f"{choice}; {_megabytes(twin)}"


def _megabytes(twin: KernelTwin) -> str:
    return f"{twin.held_bytes / 1e6:.1f} MB of weights held beside the model's"
