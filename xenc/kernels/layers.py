"""Modules of a twin that stand in the place of a model's linear layers, and of what surrounds them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..execution import Products
from .products import Held, by_kernel, by_onednn, eight_bit_weight, kernel_weight


class Product(nn.Module):
    """activation(hidden W^T + b) of one linear layer, or of several that read the same, side by side.

    Args:
        activation: what follows in the same pass; one of `products.ACTIVATIONS`.
    """

    weight: Tensor

    def __init__(self, activation: str = "none") -> None:
        super().__init__()
        self.activation = activation
        self.outputs = 0

    @abstractmethod
    def hold(self, layers: Sequence[nn.Linear]) -> None:
        """Take over the weights [outputs, inputs] and biases of the layers."""

    def _put(self, **held: Tensor | None) -> None:
        for name, tensor in held.items():
            self.register_buffer(name, tensor, persistent=False)


class KernelProduct(Product):
    """By our own kernel, on weights in panels: a second copy of them."""

    bias: Tensor
    scales: Tensor | None
    sums: Tensor | None

    def hold(self, layers: Sequence[nn.Linear]) -> None:
        """Take over the weights and biases of the layers."""
        weight, bias = _side_by_side(layers)
        self.outputs = weight.shape[0]
        self._put(**self._held(weight, bias)._asdict())

    def _held(self, weight: Tensor, bias: Tensor) -> Held:
        return kernel_weight(weight, bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        held = Held(self.weight, self.bias, self.scales, self.sums)
        return by_kernel(hidden, held, self.outputs, self.activation)


class EightBitProduct(KernelProduct):
    """By our own kernel, in eight bits: weights scaled by row once, activations by token as they come.

    A token's activations are quantised between their smallest and largest number, not symmetrically: behind
    GELU almost all of the range is on one side.
    """

    def _held(self, weight: Tensor, bias: Tensor) -> Held:
        return eight_bit_weight(weight, bias)


class OneDnnProduct(Product):
    """By oneDNN, on weights as they are stored: one layer's own, or a copy of several side by side."""

    bias: Tensor | None

    def hold(self, layers: Sequence[nn.Linear]) -> None:
        """Take over the weights and biases of the layers."""
        weight: Tensor = layers[0].weight
        bias: Tensor | None = layers[0].bias
        if len(layers) > 1:
            weight, bias = _side_by_side(layers)
        self.outputs = weight.shape[0]
        self._put(weight=weight.detach(), bias=None if bias is None else bias.detach())

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        result: Tensor = by_onednn(hidden, self.weight, self.bias, self.activation)
        return result


KINDS: Final[dict[Products, type[Product]]] = {"xenc": KernelProduct, "onednn": OneDnnProduct}


class JointAttention(nn.Module):
    """Self-attention of BERT's kind with query, key and value in one product, whose views attention reads.

    Args:
        source: the module in whose place it stands; see `replace.JOINT`.
        product: of query, key and value, in this order.
        output: the projection that belongs to the module, if one does.
    """

    def __init__(self, source: Any, product: Product, output: Product | None) -> None:
        super().__init__()
        self.config, self.is_causal = source.config, source.is_causal
        self.scaling, self.head_size = source.scaling, source.attention_head_size
        self.product, self.output = product, output

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **attending: Any
    ) -> tuple[Tensor, None]:
        """[B, T, H] -> [B, T, H], as the module in whose place it stands."""
        rows = hidden_states.shape[:-1]
        joint = self.product(hidden_states).view(*rows, 3, -1, self.head_size)
        query, key, value = (part.transpose(1, 2) for part in joint.unbind(-3))
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        attended = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **attending
        )[0].reshape(*rows, -1)
        return (attended if self.output is None else self.output(attended)), None


def _side_by_side(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    """Weights and biases one after the other; a layer without a bias has one of zeros."""
    weights = [layer.weight.detach() for layer in layers]
    biases = [
        layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
        for layer in layers
    ]
    return torch.cat(weights), torch.cat(biases)
