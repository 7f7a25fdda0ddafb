"""Modules that replace a model's linear layers, and the attention around them, in a twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..execution import Products
from .products import ACTIVATIONS, Held, by_kernel, by_onednn, eight_bit_weight, kernel_weight


class Product(nn.Module):
    """activation(hidden W^T + b) of one linear layer, or of several with the same input, side by side.

    Args:
        activation: one of `products.ACTIVATIONS`.
    """

    weight: Tensor
    bias: Tensor | None
    scales: Tensor | None
    sums: Tensor | None
    lay_out: Callable[[Tensor, Tensor | None], Held] = Held
    """Puts weight [outputs, inputs] and bias [outputs] into the layout that `forward` needs."""

    def __init__(self, activation: str = "none") -> None:
        super().__init__()
        self.activation = activation
        self.outputs = 0

    def hold(self, layers: Sequence[nn.Linear]) -> None:
        """Take over the weights and biases of the layers."""
        weight, bias = _side_by_side(layers)
        self.outputs = weight.shape[0]
        for name, tensor in self.lay_out(weight, bias)._asdict().items():
            self.register_buffer(name, tensor, persistent=False)


class KernelProduct(Product):
    """By our own kernel, on a copy of the weights in panels."""

    lay_out = staticmethod(kernel_weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        held = Held(self.weight, self.bias, self.scales, self.sums)
        return by_kernel(hidden, held, self.outputs, self.activation)


class EightBitProduct(KernelProduct):
    """By our own kernel in int8: weights scaled per row once, activations per token in each pass.

    Activations are quantised asymmetrically, between their smallest and largest number: after GELU almost all
    of the range is positive.
    """

    lay_out = staticmethod(eight_bit_weight)


class OneDnnProduct(Product):
    """By oneDNN, on one layer's own weight, or on a copy of several side by side."""

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        result: Tensor = by_onednn(hidden, self.weight, self.bias, self.activation)
        return result


class CublasLtProduct(Product):
    """By cuBLASLt on CUDA, on one layer's own weight, or on a copy of several side by side.

    cuBLASLt applies GELU to a product before it is stored, and has only its tanh form (Hendrycks and Gimpel,
    https://arxiv.org/abs/1606.08415, section 2). So "gelu", which is defined by erf, is computed in that form
    too. The two differ by at most 4.8e-4, at inputs of +-2.7, where bfloat16 has steps of 1.6e-2 and float16
    of 2e-3. Scores in bfloat16 are hardly further off for it; in float16 it adds about as much error as
    the dtype has anyway. PyTorch's operator applies the erf form on a CPU.
    """

    def hold(self, layers: Sequence[nn.Linear]) -> None:
        """As `Product.hold`. A copy stays where it is, since a CUDA graph has read its address; an activation
        needs a bias.
        """
        before = dict(self._buffers)
        super().hold(layers)
        if len(layers) > 1:  # those of one layer are its own
            self._buffers.update({name: _kept(before.get(name), now) for name, now in self._buffers.items()})
        if self.activation != "none" and self.bias is None:
            self.bias = self.weight.new_zeros(self.outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        if self.activation == "none":
            return functional.linear(hidden, self.weight, self.bias)
        assert self.bias is not None
        rows = hidden.reshape(-1, hidden.shape[-1])
        out = torch._addmm_activation(self.bias, rows, self.weight.t(), use_gelu=True)
        return out.view(*hidden.shape[:-1], self.outputs)


KINDS: Final[dict[Products, type[Product]]] = {
    "xenc": KernelProduct, "onednn": OneDnnProduct, "cublaslt": CublasLtProduct
}  # fmt: skip

FUSED: Final[dict[Products, frozenset[str]]] = {
    "xenc": frozenset(ACTIVATIONS),
    "onednn": frozenset(ACTIVATIONS) - {"silu"},
    "cublaslt": frozenset({"gelu", "gelu_tanh"}),
}
"""The activations that a way of multiplying can apply inside the product."""


class JointAttention(nn.Module):
    """BERT's self-attention with query, key and value in one product.

    Args:
        source: the module it replaces; see `models.replace.JOINT`.
        product: of query, key and value, in this order.
        output: the output projection, if the module has one.
    """

    def __init__(self, source: Any, product: Product, output: Product | None) -> None:
        super().__init__()
        self.config, self.is_causal = source.config, source.is_causal
        self.scaling, self.head_size = source.scaling, source.attention_head_size
        self.product, self.output = product, output

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **attending: Any
    ) -> tuple[Tensor, None]:
        """[B, T, H] -> [B, T, H], as the module it replaces."""
        rows = hidden_states.shape[:-1]
        joint = self.product(hidden_states).view(*rows, 3, -1, self.head_size)
        query, key, value = (part.transpose(1, 2) for part in joint.unbind(-3))
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        attended = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **attending
        )[0].reshape(*rows, -1)
        return (attended if self.output is None else self.output(attended)), None


def _kept(before: Tensor | None, now: Tensor | None) -> Tensor | None:
    """What now is, in the memory of what was before where that fits."""
    if before is None or now is None:
        return now
    if (before.shape, before.dtype, before.device) != (now.shape, now.dtype, now.device):
        return now
    return before.copy_(now)


def _side_by_side(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of one layer, or those of several concatenated, with zeros for absent biases."""
    if len(layers) == 1:
        return layers[0].weight.detach(), None if layers[0].bias is None else layers[0].bias.detach()
    biases = (
        layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers
    )
    return torch.cat([layer.weight for layer in layers]).detach(), torch.cat([*biases]).detach()
