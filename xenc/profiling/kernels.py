"""The kernels of one pass, by torch.profiler: counts, times, peak memory.

On CUDA a kernel is what ran on the device, by its own name; copies and fills are "memcpy HtoD", "memset".

On a CPU a kernel is an outermost operator that computes, with what it calls. Operators that only combine
others (aten::linear, a compiled region), views and allocations are none. Inductor's fused kernels show only
if `name_compiled_kernels` was called before they were compiled. Operators are recorded on the thread that
calls them, so counts depend neither on the number of threads nor on time.
"""

from __future__ import annotations

import re
import time
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

from .kernel_names import INDUCTOR, Kernels, added

_NO_KERNEL: Final = re.compile(r"aten::(empty(_like|_strided)?|new_empty|resize_|_unsafe_view|detach_)")
"""Operators that only allocate or rename, though their schemas do not say so."""

_Launch = tuple[str, int, int]
"""Name, start in ns, duration in ns."""

_OWN: Final = re.compile(r"xenc\w*_kernels::((pooled_|biased_)?attention|linear)")
"""xenc's C++ kernels, of any revision; their copies of inputs belong to them."""


@dataclass(frozen=True, kw_only=True)
class PassProfile:
    """One pass, by torch.profiler; see `profile_pass`.

    Attributes:
        wall_s: seconds of the pass, with the profiler's own cost.
        busy_s: seconds in which at least one kernel ran.
        kernels: launches and seconds by name.
        peak_bytes: the most bytes that the pass held at once. On CUDA: above what was held before, as the
            allocator rounds; the memory of CUDA graphs was held before.
        region_calls: calls of compiled regions from Python, on the thread that the profiler was started on.
        cudagraph_launches: CUDA graphs replayed.
    """

    wall_s: float
    busy_s: float
    kernels: Kernels
    peak_bytes: int
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
    needs_kernels: bool = True,
) -> PassProfile:
    """Run one warmed-up pass on "cpu" or "cuda" under the profiler; see `recording` for `on_device`.

    `run` returns when the pass has ended (on CUDA: has been launched). `trace` is the file of a Chrome trace
    to write.

    Raises:
        RuntimeError: the profiler saw no kernel, and `needs_kernels`.
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
    if not launches and needs_kernels:
        raise RuntimeError(
            "the profiler saw no kernel: does the pass run on another thread than on_device's?"
        )
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
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

    `on_device` runs a job on the thread of the operators and waits for it: on a CPU the profiler sees
    allocations (`memory`) only of the thread that it was started on.
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
    """Show the C++ kernels that Inductor compiles from now on to the profiler, at a few ns per call.

    Call it on the thread that compiles: PyTorch's settings are per thread (per process in torch 2.11).
    """
    torch._inductor.config.cpp.enable_kernel_profile = True


@cache
def _initialise() -> None:
    """Kineto warns unless its first profile is on the thread that imported torch."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        pass


def _covered_ns(launches: Iterable[_Launch]) -> int:
    """The time in which at least one was running."""
    covered = end = 0
    for _, start, duration in sorted(launches, key=lambda launch: launch[1]):
        covered += max(0, start + duration - max(end, start))
        end = max(end, start + duration)
    return covered


def _device_kernels(events: Iterable[Any]) -> Iterator[_Launch]:
    for event in events:
        if event.device_type() != DeviceType.CUDA or event.is_user_annotation():
            continue
        copied = re.match(r"(Memcpy \w+|Memset)", event.name())
        name = copied.group(1).replace("Mem", "mem") if copied else event.name()
        yield name, event.start_ns(), event.duration_ns()


def _operators(nodes: Iterable[Any]) -> Iterator[_Launch]:
    for node in nodes:
        name = node.name
        if node.tag != torch._C._profiler._EventType.TorchOp or _NO_KERNEL.fullmatch(name):
            continue
        calls_kernels, is_no_kernel = _nature(name)
        inner = list(_operators(node.children)) if calls_kernels else []
        yield from inner
        if not inner and not is_no_kernel:
            yield name, node.start_time_ns, node.duration_time_ns


def _peak_bytes(roots: Iterable[Any]) -> int:
    """The largest sum of blocks allocated and not yet freed."""
    nodes = list(roots)
    for node in nodes:  # the list grows as it is read
        nodes += node.children
    allocations = [node for node in nodes if node.tag == torch._C._profiler._EventType.Allocation]
    held: dict[int, int] = {}
    total = peak = 0
    for node in sorted(allocations, key=lambda node: int(node.start_time_ns)):
        address, size = node.extra_fields.ptr, node.extra_fields.alloc_size
        total -= held.pop(address, 0)  # also if another thread freed it unseen
        if size > 0:
            held[address] = size
            total += size
        peak = max(peak, total)
    return peak


@cache
def _nature(name: str) -> tuple[bool, bool]:
    """Whether an operator may call kernels, and whether it is no kernel itself if it calls none.

    Both hold for views and for composites: dropout that drops nothing, an empty compiled region.
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
