"""CUDA without a GPU: tensors that have a device, a dtype, a shape and strides, and no memory.

Everything that decides what would run on a GPU runs on them: transformers' model, the collators, Dynamo, AOT
autograd with Inductor's decompositions, and what PyTorch says that each CUDA kernel answers. What no fake
tensor can show is what a kernel computes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

DEVICE = torch.device("cuda:0")

_GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
"""c10::impl::device_guard_impl_registry: a pointer for each kind of device."""

_KINDS = torch._C._autograd.DeviceType


@dataclass(frozen=True)
class Graph:
    """What Inductor would be given: functional ATen operators on fake tensors."""

    module: torch.fx.GraphModule
    inputs: list[Any]

    @property
    def nodes(self) -> list[torch.fx.Node]:
        return list(self.module.graph.nodes)

    def calls(self, operator: Any) -> list[torch.fx.Node]:
        """Nodes that call an operator, or any overload of it."""
        return [node for node in self.nodes if operator in (node.target, _packet(node))]

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor that is read or made, the graph's own constants included."""
        values = [node.meta.get("val") for node in self.nodes]
        every = [value for part in values for value in (part if isinstance(part, (list, tuple)) else [part])]
        held = [getattr(self.module, node.target) for node in self.nodes if node.op == "get_attr"]
        return [value for value in (*every, *held) if isinstance(value, Tensor)]


def _packet(node: torch.fx.Node) -> Any:
    return getattr(node.target, "overloadpacket", None)


@contextmanager
def no_device(*, scalars: bool = True) -> Iterator[None]:
    """Fake tensors on CUDA devices, by any build of PyTorch; without `scalars`, none may be read off them.

    A build for CUDA replaces its device guard by one that does nothing, where it finds no device. A build for
    CPUs has none at all, so it borrows that of meta tensors, which does nothing either. Triton, which would
    launch, is left out, except where there is nothing else: models whose attention has a bias are packed.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv() if scalars else None, allow_non_fake_inputs=True)
    if torch.cuda._is_compiled():
        with _no_launches(), mode:
            yield
        return
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (int(_KINDS.Meta) + 1)).in_dll(library, _GUARDS)
    guards[int(_KINDS.CUDA)] = guards[int(_KINDS.Meta)]
    try:
        with _no_launches(), mode:
            yield
    finally:
        guards[int(_KINDS.CUDA)] = None


@contextmanager
def _no_launches() -> Iterator[None]:
    with (
        mock.patch("xenc.kernels.packed_attention.why_not_triton", return_value="fake tensors"),
        mock.patch("xenc.kernels.biased_attention.why_not_biased", return_value=None),
        mock.patch("xenc.models.families.why_not_biased", return_value=None),
    ):
        yield


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Graph]]:
    """Instead of being compiled, what Inductor is given by torch.compile ends up in the list."""
    graphs: list[Graph] = []

    def record(module: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(Graph(module, list(inputs)))
        return make_boxed_func(module.forward)

    def backend(module: torch.fx.GraphModule, inputs: list[Any], **_: Any) -> Any:
        return aot_autograd(
            fw_compiler=record, inference_compiler=record, decompositions=select_decomp_table(),
            keep_inference_input_mutations=True,
        )(module, inputs)  # fmt: skip

    with monkeypatch.context() as patched:
        patched.setattr("torch._inductor.compile_fx.compile_fx", backend)
        yield graphs


def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no device to wait for, and no memory to be pinned."""
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)


class _Event:
    def record(self, stream: object) -> None:
        pass

    def synchronize(self) -> None:
        pass
