"""What one pass ran, by torch.profiler: kernels, their counts and times, peak memory.

On CUDA a kernel is what ran on the device, by its own name; copies and fills are "memcpy HtoD", "memset".

On a CPU a kernel is an outermost operator that computes: not what only combines others (aten::linear, regions
of torch.compile, operators in other namespaces that call aten's), not views, not allocations; and what it
calls in its turn (the copy of a scalar, say) is its own affair. Inductor's fused kernels are seen only where
`name_compiled_kernels` was called before they were compiled. Operators are recorded where
they are called, not in the threads that they spread over, so that neither threads nor time change a count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
import torch._inductor.config
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .kernel_names import INDUCTOR, Kernels

_IDLE: Final = frozenset(
    f"aten::{name}"
    for name in ("empty", "empty_like", "empty_strided", "new_empty", "resize_", "_unsafe_view", "detach_")
)
"""What only allocates or renames, though its schema does not say so."""

_OWN: Final = re.compile(r"xenc\w*_kernels::((pooled_)?attention|linear)")
"""The C++ kernels, of any revision."""


@dataclass(frozen=True, kw_only=True)
class PassProfile:
    """What a pass ran.

    Attributes:
        kernels: launches and seconds by name.
        peak_bytes: the most bytes held at once of what the pass itself allocated. On CUDA: above what was
            held when it began, in the allocator's rounding; what a CUDA graph replays in was held before.
        busy_s: seconds in which at least one kernel ran.
        region_calls: how often code that torch.compile made was called, from Python; seen on the thread that
            the profiler was started on.
        cudagraph_launches: CUDA graphs replayed.
    """

    kernels: Kernels
    peak_bytes: int
    busy_s: float
    region_calls: int
    cudagraph_launches: int

    @property
    def kernel_count(self) -> int:
        """Launches of all kernels."""
        return sum(count for count, _ in self.kernels.values())


def profile_pass(
    run: Callable[[], object],
    *,
    device: str,
    on_device: Callable[[Callable[[], object]], object] = lambda job: job(),
    trace: Path | None = None,
) -> PassProfile:
    """Run one pass under the profiler. Warm it up first: what compiles would be counted too.

    Args:
        run: the pass. It ends when everything it started has ended; on CUDA, when it is launched.
        device: "cpu" or "cuda".
        on_device: see `recording`.
        trace: where to write all that was seen, as a Chrome trace.

    Raises:
        RuntimeError: no kernel was seen, which is another thread's work if there was any.
    """
    cuda = device == "cuda"
    before = _reset_cuda_peak() if cuda else 0
    with recording(device=device, on_device=on_device, memory=not cuda) as profiler:
        run()
        if cuda:
            torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before if cuda else 0
    results: Any = profiler.profiler.kineto_results  # type: ignore[union-attr]
    if cuda:
        launches = list(_device_kernels(results.events()))
    else:
        roots = results.experimental_event_tree()
        launches, peak = list(_operators(roots)), _peak(roots)
    if not launches:
        raise RuntimeError(
            "the profiler saw no kernel: does the pass run on another thread than on_device's?"
        )
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    calls = Counter(event.name().partition(":")[0] for event in results.events())
    return PassProfile(
        kernels=_added(launches),
        peak_bytes=peak,
        busy_s=_covered(launches) / 1e9,
        region_calls=calls["Torch-Compiled Region"],
        cudagraph_launches=calls["cudaGraphLaunch"],
    )


@contextmanager
def recording(
    *, device: str, on_device: Callable[[Callable[[], object]], object], memory: bool = False
) -> Iterator[profile]:
    """PyTorch's profiler, on while the block runs.

    Args:
        device: "cpu" or "cuda".
        on_device: runs a job on the thread that runs the operators, and waits for it. The profiler sees the
            thread that it was started on: allocations of no other, on a CPU.
        memory: whether to note what is allocated.
    """
    _initialise()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    profiler = profile(activities=activities, profile_memory=memory, acc_events=True)
    on_device(profiler.start)
    try:
        yield profiler
    finally:
        on_device(profiler.stop)


def name_compiled_kernels() -> None:
    """Have Inductor's C++ kernels tell the profiler their names, a few ns each, if compiled from now on.

    Call it on the thread that compiles: PyTorch's settings belong to a thread, in torch 2.11 to the process.
    """
    torch._inductor.config.cpp.enable_kernel_profile = True


@cache
def _initialise() -> None:
    """Kineto wants its first profile in the thread that imported torch, and says so otherwise."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        pass


def _reset_cuda_peak() -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


@dataclass(frozen=True, slots=True)
class _Launch:
    name: str
    start_ns: int
    duration_ns: int


def _added(launches: Iterable[_Launch]) -> dict[str, tuple[int, float]]:
    added: dict[str, tuple[int, float]] = {}
    for launch in launches:
        count, total = added.get(launch.name, (0, 0.0))
        added[launch.name] = count + 1, total + launch.duration_ns / 1e9
    return added


def _covered(launches: Iterable[_Launch]) -> int:
    """Nanoseconds in which at least one was running."""
    covered = end = 0
    for launch in sorted(launches, key=lambda launch: launch.start_ns):
        stop = launch.start_ns + launch.duration_ns
        covered += max(0, stop - max(end, launch.start_ns))
        end = max(end, stop)
    return covered


def _device_kernels(events: Iterable[Any]) -> Iterator[_Launch]:
    for event in events:
        if event.device_type() != DeviceType.CUDA or event.is_user_annotation():
            continue
        copied = re.match(r"(Memcpy \w+|Memset)", event.name())
        name = copied.group(1).replace("Mem", "mem") if copied else event.name()
        yield _Launch(name, event.start_ns(), event.duration_ns())


def _operators(nodes: Iterable[Any]) -> Iterator[_Launch]:
    for node in nodes:
        name = node.name
        if node.tag != torch._C._profiler._EventType.TorchOp or name in _IDLE:
            continue
        inner = list(_operators(node.children)) if _may_combine(name) or _may_view(name) else []
        if inner:
            yield from inner
        elif not _may_view(name) and not _only_combines(name):
            yield _Launch(name, node.start_time_ns, node.duration_time_ns)


def _peak(roots: Iterable[Any]) -> int:
    """The largest sum of the blocks allocated by then and not freed, in the order of time."""
    allocations = sorted(_allocations(roots), key=lambda node: int(node.start_time_ns))
    held: dict[int, int] = {}
    total = peak = 0
    for fields in (node.extra_fields for node in allocations):
        total -= held.pop(fields.ptr, 0)  # also where another thread freed it unseen
        if fields.alloc_size > 0:
            held[fields.ptr] = fields.alloc_size
            total += fields.alloc_size
        peak = max(peak, total)
    return peak


def _allocations(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        if node.tag == torch._C._profiler._EventType.Allocation:
            yield node
        yield from _allocations(node.children)


@cache
def _overloads(name: str) -> tuple[Any, ...]:
    return tuple(torch._C._jit_get_schemas_for_operator(name)) if "::" in name else ()


@cache
def _may_view(name: str) -> bool:
    """Whether an operator that calls none has computed nothing and answers with a view of its argument."""
    returned = [value.alias_info for schema in _overloads(name) for value in schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


@cache
def _composites(name: str) -> tuple[bool, ...]:
    """Of each overload, whether it is written in terms of other operators."""
    names = (f"{name}.{schema.overload_name}".rstrip(".") for schema in _overloads(name))
    known = filter(torch._C._dispatch_has_kernel, names)  # not TorchScript's own
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return tuple(has_kernel(overload, "CompositeImplicitAutograd") for overload in known)


def _may_combine(name: str) -> bool:
    if _OWN.fullmatch(name):  # what it copies first is its own affair
        return False
    return not name.startswith("aten::") or any(_composites(name))


def _only_combines(name: str) -> bool:
    """Whether an operator that calls none has done nothing: dropout that drops nothing, an empty region."""
    return all(_composites(name)) and not INDUCTOR.match(name)
