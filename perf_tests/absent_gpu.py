"""An H200 that is not there: Inductor generates code for it without running a kernel.

Tensors are fake: they have a device, a shape and a dtype, but no memory. The device's properties and Triton's
target are answered here, and generated code is caught before it would be loaded. This covers modes in which
Inductor chooses kernels by a rule, not "max-autotune", which times them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE: Final = torch.device("cuda:0")
CAPABILITY: Final = (9, 0)

_PROPERTIES: Final = SimpleNamespace(
    name="NVIDIA H200", major=9, minor=0, multi_processor_count=132, total_memory=141 * 10**9, warp_size=32,
    regs_per_multiprocessor=65_536, max_threads_per_multi_processor=2048, max_threads_per_block=1024,
    shared_memory_per_block=48 << 10, shared_memory_per_block_optin=227 << 10,
    shared_memory_per_multiprocessor=228 << 10, L2_cache_size=60 << 20, gcnArchName="",
)  # fmt: skip


class NoCompilerError(Exception):
    """A CUDA build of PyTorch, or Triton, is not installed."""


class _Caught(Exception):
    """The code has been generated: stop."""


@dataclass
class Generated:
    """Inductor's GraphLowering, the module it would load, and the result of `look`.

    `kernel_of` maps scheduler nodes to the names of the Triton kernels that they are part of.
    """

    graph: Any = None
    code: str = ""
    kernel_of: dict[str, str] = field(default_factory=dict)
    seen: Any = None


def check_compilers() -> None:
    """Raises NoCompilerError, which says what to install, unless code for CUDA can be generated."""
    if torch.version.cuda is None:
        raise NoCompilerError(f"torch {torch.__version__} is no CUDA build: install one. No GPU is needed.")
    try:
        import triton  # noqa: F401
    except ImportError:
        raise NoCompilerError("Triton is absent: pip install triton. No GPU is needed.") from None


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors on DEVICE can be made and have everything but values."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    event = mock.Mock(spec=["record", "synchronize"])
    cuda = {
        "Event": lambda: event, "current_stream": _nothing, "synchronize": _nothing,
        "get_device_capability": lambda *_: CAPABILITY, "get_device_name": lambda *_: _PROPERTIES.name,
    }  # fmt: skip
    with (
        mode,
        mock.patch.multiple(torch.cuda, **cuda),
        mock.patch.object(torch.Tensor, "pin_memory", lambda self: self),
        # the values of small constants do not matter
        mock.patch.object(FakeTensor, "tolist", lambda self: [0] * self.numel()),
    ):
        yield


@contextmanager
def generating(look: Callable[[Any, dict[str, str]], Any]) -> Iterator[Generated]:
    """Inside the block torch.compile with Inductor generates code for an H200; the compiling call ends there.

    `look` is called with the GraphLowering and `Generated.kernel_of`; its result is `Generated.seen`.

    Raises:
        NoCompilerError: a CUDA build of PyTorch, or Triton, is absent.
    """
    check_compilers()
    from torch._functorch import config as functorch_config
    from torch._inductor import compile_fx, config

    generated, compile_ = Generated(), compile_fx.compile_fx

    def on_an_h200(*arguments: Any, **options: Any) -> Any:
        with mock.patch.object(compile_fx, "compile_fx", compile_), _h200(), _caught(generated, look):
            return compile_(*arguments, **options)

    with (
        mock.patch.object(compile_fx, "compile_fx", on_an_h200),
        config.patch(fx_graph_cache=False, compile_threads=1),
        functorch_config.patch(enable_autograd_cache=False),
    ):
        try:
            yield generated
        except Exception:
            if generated.graph is None:
                raise


def compile_kernels(code: str) -> dict[str, int]:
    """A generated module's Triton kernels, compiled to cubins -> how many variants each was compiled in."""
    from torch._inductor.codecache import PyCodeCache

    variants = {}
    for name, source in re.findall(r"^(\w+) = async_compile\.triton\('\w+', '''(.*?)'''", code, re.S | re.M):
        with _h200():
            module = PyCodeCache.load(source)
            [tuner] = [each for each in vars(module).values() if hasattr(each, "_precompile_config")]
            variants[name] = len([tuner._precompile_config(variant) for variant in tuner.configs])
    return variants


def _nothing(*_: Any) -> None:
    pass


@contextmanager
def _caught(generated: Generated, look: Callable[[Any, dict[str, str]], Any]) -> Iterator[None]:
    from torch._inductor.codegen.triton import TritonScheduling
    from torch._inductor.graph import GraphLowering

    define = TritonScheduling.define_kernel

    def defined(self: Any, source: str, schedule: list[Any], kernel: Any) -> str:
        name: str = define(self, source, schedule, kernel)
        generated.kernel_of |= {node.get_name(): name for node in schedule if hasattr(node, "get_name")}
        return name

    def caught(graph: Any, code: Any) -> Any:
        generated.graph, generated.code, generated.seen = graph, code.value, look(graph, generated.kernel_of)
        raise _Caught

    with (
        mock.patch.object(TritonScheduling, "define_kernel", defined),
        mock.patch.object(GraphLowering, "_compile_to_module_lines", caught),
    ):
        yield


@contextmanager
def _h200() -> Iterator[None]:
    """Answer PyTorch, Inductor and Triton when they ask for the device."""
    import torch._subclasses.fake_tensor as fake
    import torch.utils._triton as asked
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor.fx_passes.joint_graph import UniformValueConstantFolder as Folder
    from torch._inductor.runtime import triton_helpers
    from triton.runtime import driver

    device: dict[str, Any] = {
        "current_device": lambda: 0, "set_device": _nothing, "device_count": lambda: 1,
        "synchronize": _nothing, "get_device_properties": lambda *_: _PROPERTIES,
        "is_bf16_supported": lambda *_, **__: True, "memory_allocated": lambda *_: 0,
    }  # fmt: skip
    random = {"get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8), "set_rng_state": _nothing}
    swaps = {"exchange_device": lambda _: 0, "maybe_exchange_device": lambda _: 0}
    interface = {name: staticmethod(answer) for name, answer in (device | swaps).items()}
    private = {f"_{name}": answer for name, answer in swaps.items()}
    fold, deduce = Folder.run, Folder._deduce_value

    def folded(self: Any) -> Any:
        with _OnTheHost():
            return fold(self)

    def deduced(self: Any, node: Any) -> Any:
        return self.unknown_value if node.op == "get_attr" else deduce(self, node)

    def forget() -> None:
        for question in vars(asked).values():
            if hasattr(question, "cache_clear"):
                question.cache_clear()

    with ExitStack() as stack:
        for patch in (
            mock.patch.multiple(torch.cuda, is_available=lambda: True, **device, **private, **random),
            mock.patch.multiple(CudaInterface, **interface),
            mock.patch.multiple(
                CudaInterface.Worker, current_device=staticmethod(lambda: 0),
                get_device_properties=staticmethod(lambda *_: _PROPERTIES),
            ),
            mock.patch.object(FakeTensorMode, "avoid_device_init", property(lambda self: True)),
            mock.patch.object(fake, "init_gpu_context", _nothing),
            mock.patch.multiple(Folder, run=folded, _deduce_value=deduced),
            mock.patch.object(triton_helpers, "set_driver_to_gpu", _nothing),
            mock.patch.object(driver, "_active", _driver()),
        ):  # fmt: skip
            stack.enter_context(patch)
        stack.callback(forget)
        forget()
        yield


def _driver() -> Any:
    from triton.backends.compiler import GPUTarget

    major, minor = CAPABILITY
    target = GPUTarget("cuda", 10 * major + minor, _PROPERTIES.warp_size)
    return SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0)


class _OnTheHost(TorchDispatchMode):
    """Inductor computes small constants by running operators on the device; here they run on the CPU."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "device"}
        args = [torch.device("cpu") if isinstance(each, torch.device) else each for each in args]
        return operator(*args, **kwargs)
