"""Linear layers of every shape, what comes of them in float64, and what in exact integers of eight bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xenc.kernels.layers import EightBitProduct, KernelProduct, OneDnnProduct

EXACT = {
    "none": lambda x: x,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer and rows for it.

    Attributes:
        rows, inputs, outputs: of the product.
        activation: what follows.
        bias: whether the layer has one.
        dtype: of the layer and the rows.
        seed: of their numbers.
    """

    rows: int = 7
    inputs: int = 64
    outputs: int = 48
    activation: str = "none"
    bias: bool = True
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in vars(self).items()).replace("torch.", "")

    def layer(self) -> nn.Linear:
        """Seeded, of unit spread at its outputs."""
        generator = torch.Generator().manual_seed(self.seed)
        layer = nn.Linear(self.inputs, self.outputs, bias=self.bias)
        with torch.no_grad():
            layer.weight.normal_(std=self.inputs**-0.5, generator=generator)
            if self.bias:
                layer.bias.normal_(generator=generator)
        return layer.to(self.dtype).requires_grad_(False)

    def left(self) -> Tensor:
        """[rows, inputs], of unit spread."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(self.rows, self.inputs, generator=generator).to(self.dtype)

    def kernel(self) -> KernelProduct:
        """The layer by our kernel."""
        return self._held(KernelProduct(self.activation))

    def eight_bits(self) -> EightBitProduct:
        """The layer by our kernel, in eight bits."""
        return self._held(EightBitProduct(self.activation))

    def onednn(self) -> OneDnnProduct:
        """The layer by oneDNN."""
        return self._held(OneDnnProduct(self.activation))

    def _held(self, product):
        product.hold([self.layer()])
        return product

    def in_float64(self, left: Tensor) -> Tensor:
        """What the layer answers in float64."""
        layer = self.layer().double()
        return EXACT[self.activation](functional.linear(left.double(), layer.weight, layer.bias))

    def in_integers(self, left: Tensor) -> Tensor:
        """What eight bits mean, without a rounding but theirs: whole steps, summed as integers, in float64.

        Whether a number just between two steps is the one or the other is float32's affair, so that is done
        as the kernel does it.
        """
        layer, rows = self.layer(), left.float()
        scales = layer.weight.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        weight = (layer.weight.float() / scales[:, None]).round().long()
        low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
        step = torch.where(high > low, (high - low) / 255, 1.0)
        steps = ((rows - low) * (1 / step)).round().clamp(0, 255).long()
        sums = (steps @ weight.T).double() * step.double() + low.double() * weight.sum(dim=1).double()
        bias = 0.0 if layer.bias is None else layer.bias.double()
        return EXACT[self.activation](sums * scales.double() + bias)

    def assert_close(self, out: Tensor, exact: Tensor, *, steps: float = 2) -> None:
        """Within rounding steps of the largest number of the answer, and some more for float32's sums."""
        assert (out.shape, out.dtype, out.is_contiguous()) == (exact.shape, self.dtype, True)
        largest = max(1.0, exact.abs().max().item())
        allowed = steps * torch.finfo(self.dtype).eps + 3e-6
        assert (out.double() - exact).abs().max().item() <= allowed * largest
