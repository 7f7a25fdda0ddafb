"""Code that Inductor generated for a GPU -> its launches: name, bytes, FLOPs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from xenc.profiling.flops import DENSE_PEAKS

BYTES_PER_S: Final = 4.3e12
"""What a large copy reaches on an H200, reads and writes together; the datasheet says 4.8e12."""

FLOPS_PER_S, EIGHT_BITS_PER_S = DENSE_PEAKS["H200"], 1978.9e12
"""Dense peaks by the datasheet: products of sixteen bits and of eight, in FLOP/s."""

_EIGHT_BITS = ("_scaled_mm",)
_WITH_BIAS = ("addmm", "_addmm_activation")


@dataclass(frozen=True)
class Launch:
    """One kernel, or one call of a library, which may be more than one.

    Attributes:
        name: a Triton kernel's own, or the call's and the sizes of its product.
        bytes: read and written, as Inductor counts them.
        flops: of products and of attention; 0 for the rest, whose arithmetic hides behind their bytes.
        flops_per_s: the peak that these run at.
    """

    name: str
    bytes: int
    flops: float
    flops_per_s: float

    @property
    def seconds(self) -> float:
        """The least it can take."""
        return max(self.bytes / BYTES_PER_S, self.flops / self.flops_per_s)


def launches_of(graph: Any, kernel_of: dict[str, str], attended: int) -> list[Launch]:
    """Every launch of a GraphLowering, in order.

    Args:
        graph: whose code has been generated, and which is in force.
        kernel_of: scheduler node -> name of the Triton kernel that it is part of.
        attended: how many tokens a token attends to on average, by which packed attention is counted.
    """
    launches = []
    for node in graph.scheduler.nodes:
        parts = [part for part in node.get_nodes() if part.node is not None]
        if not parts or type(parts[0].node).__name__ == "MultiOutput" or node.get_device().type != "cuda":
            continue
        name = kernel_of.get(parts[0].get_name())
        if name is None:
            launches.append(_call(parts[0].node, node.get_read_write_buffers_sizes(), attended))
        else:
            launches.append(Launch(name, _moved(node), 0.0, FLOPS_PER_S))
    return launches


def _call(node: Any, size: int, attended: int) -> Launch:
    """A call of a library or of an operator."""
    name = str(node.get_origin_node().target if node.get_origin_node() else node.python_kernel_name)
    name = name.removeprefix("aten.").removesuffix(".default")
    flops, per_s = 0.0, EIGHT_BITS_PER_S if name in _EIGHT_BITS else FLOPS_PER_S
    shapes = [_sizes(part) for part in node.inputs]
    if name in ("mm", *_WITH_BIAS, *_EIGHT_BITS):
        matrices = shapes[1:3] if name in _WITH_BIAS else shapes[:2]
        (rows, inner), (_, columns) = matrices
        name, flops = f"{name} {rows} x {inner} x {columns}", 2.0 * rows * inner * columns
    elif "attention" in name:
        flops = 4.0 * attended * math.prod(shapes[0])
        name = f"{name} {' x '.join(map(str, shapes[0]))}"
    return Launch(name, size, flops, per_s)


def _moved(node: Any) -> int:
    """Bytes of a Triton kernel, which reads of a table no more elements than it has threads."""
    from torch._inductor.virtualized import V

    elements = math.prod(int(V.graph.sizevars.size_hint(size)) for size in node.group[1])
    accesses = node.get_read_write_buffer_accesses(include_reads=True, include_writes=True)
    return sum(min(size, elements * V.graph.get_dtype(name).itemsize) for name, size in accesses.items())


def _sizes(part: Any) -> list[int]:
    from torch._inductor.virtualized import V

    return [int(V.graph.sizevars.size_hint(size)) for size in part.get_size()]
