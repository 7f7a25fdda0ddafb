"""What one pass ran, by torch.profiler: kernels, their counts and times, peak memory.

On CUDA a kernel is what ran on the device, by its own name; copies and fills are "memcpy HtoD", "memset".

On a CPU a kernel is an outermost operator that computes. An operator that only combines others (aten::linear,
a region of torch.compile, an operator of another namespace that calls aten's) is none, nor is a view or an
allocation; what a kernel calls in its turn (to copy a scalar, say) belongs to it. Inductor's fused kernels
are seen only where `name_compiled_kernels` was called before they were compiled. Operators are recorded where
they are called, not on the threads that they spread over: neither threads nor time change a count.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import torch._inductor.config
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .kernel_names import INDUCTOR, added
from .profile import PassProfile

_NO_KERNEL: Final = re.compile(
    r"aten::(empty|empty_like|empty_strided|new_empty|resize_|_unsafe_view|detach_)"
)
"""What only allocates or renames, though its schema does not say so."""

_OWN: Final = re.compile(r"xenc\w*_kernels::((pooled_)?attention|linear)")
"""xenc's C++ kernels, of any revision: what they copy first belongs to them."""


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
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held_before = torch.cuda.memory_allocated()
    with recording(device=device, on_device=on_device, memory=not cuda) as profiler:
        started = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        wall_s = time.perf_counter() - started
    results: Any = profiler.profiler.kineto_results  # type: ignore[union-attr]
    if cuda:
        launches = list(_device_kernels(results.events()))
        peak_bytes = torch.cuda.max_memory_allocated() - held_before
    else:
        roots = results.experimental_event_tree()
        launches, peak_bytes = list(_operators(roots)), _peak_bytes(roots)
    if not launches:
        raise RuntimeError(
            "the profiler saw no kernel: does the pass run on another thread than on_device's?"
        )
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    calls = Counter(event.name().partition(":")[0] for event in results.events())
    return PassProfile(
        wall_s=wall_s,
        busy_s=_covered_ns(launches) / 1e9,
        kernels=added((name, 1, duration_ns / 1e9) for name, _, duration_ns in launches),
        peak_bytes=peak_bytes,
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


class _Launch(NamedTuple):
    name: str
    start_ns: int
    duration_ns: int


def _covered_ns(launches: Iterable[_Launch]) -> int:
    """Time in which at least one was running."""
    covered = end = 0
    for _, start, duration in sorted(launches, key=lambda launch: launch.start_ns):
        covered += max(0, start + duration - max(end, start))
        end = max(end, start + duration)
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
        if node.tag != torch._C._profiler._EventType.TorchOp or _NO_KERNEL.fullmatch(name):
            continue
        calls_kernels, is_none = _nature(name)
        inner = list(_operators(node.children)) if calls_kernels else []
        if inner:
            yield from inner
        elif not is_none:
            yield _Launch(name, node.start_time_ns, node.duration_time_ns)


def _peak_bytes(roots: Iterable[Any]) -> int:
    """The largest sum of the blocks allocated by then and not freed, in the order of time."""
    nodes = list(roots)
    for node in nodes:  # which grow meanwhile
        nodes += node.children
    allocations = [node for node in nodes if node.tag == torch._C._profiler._EventType.Allocation]
    held: dict[int, int] = {}
    total = peak = 0
    for node in sorted(allocations, key=lambda node: int(node.start_time_ns)):
        address, size = node.extra_fields.ptr, node.extra_fields.alloc_size
        total -= held.pop(address, 0)  # also where another thread freed it unseen
        if size > 0:
            held[address] = size
            total += size
        peak = max(peak, total)
    return peak


@cache
def _nature(name: str) -> tuple[bool, bool]:
    """Whether kernels may be among what an operator calls, and whether it is none itself if it calls none.

    Both are so of views. What is written in terms of other operators may call kernels; where all that it is
    is others, it is none itself: dropout that drops nothing, an empty region.
    """
    schemas = torch._C._jit_get_schemas_for_operator(name) if "::" in name else ()
    aliases = [value.alias_info for schema in schemas for value in schema.returns]
    is_view = any(alias is not None and not alias.is_write for alias in aliases)
    overloads = [f"{name}.{schema.overload_name}".rstrip(".") for schema in schemas]
    composite = [
        torch._C._dispatch_has_kernel_for_dispatch_key(overload, "CompositeImplicitAutograd")
        for overload in filter(torch._C._dispatch_has_kernel, overloads)  # not TorchScript's own
    ]
    combines = not _OWN.fullmatch(name) and (not name.startswith("aten::") or any(composite))
    return is_view or combines, is_view or (all(composite) and not INDUCTOR.match(name))
