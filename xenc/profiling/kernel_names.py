"""Classes of kernels, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

Kernels = Mapping[str, tuple[int, float]]
"""Launches and seconds by name."""

INDUCTOR: Final = re.compile(r"(graph_\d+_)?(cpp|triton)_")
"""How the names of Inductor's kernels begin."""

MATRIX_PRODUCTS: Final = "matrix products"
ATTENTION: Final = "attention"
ELEMENTWISE: Final = "normalisation/elementwise"
COPIES: Final = "copies"
OTHER: Final = "other"

CLASSES: Final = (MATRIX_PRODUCTS, ATTENTION, ELEMENTWISE, COPIES, OTHER)
"""ATTENTION is fused attention only; softmax and products of unfused attention have their own classes.
Embedding lookups are COPIES."""

_TEMPLATE: Final = re.compile(r"(graph_\d+_)?(triton_tem_|cpp_\w*(gemm|bmm|flex_attention))")
"""Inductor names a kernel after all operators fused into it, or next to it; only a template's kernel contains
the product or attention of its name."""

_WORDS: Final = (
    (ATTENTION, r"flash|fmha|sdpa|attention|attn"),
    (
        MATRIX_PRODUCTS,
        r"gemm|gemv|cutlass|cublas|nvjet|xmma|splitk|matmul|linear|einsum|conv|dot_kernel"
        r"|(?<![a-z])(add|b|badd|int_|scaled_)?(mm|mv)(?![a-z])",
    ),
    (
        COPIES,
        r"copy|memcpy|memset|fill|clone|contiguous|embedding|gather|scatter|index|slice|arange"
        r"|(?<![a-z])(_?to|cat|zero|zeros|ones|full|stack|pad|repeat|expand|item)_?(?![a-z])",
    ),
    (
        ELEMENTWISE,
        r"norm|softmax|elementwise|reduc|gelu|silu|relu|tanh|sigmoid|dropout|sqrt|cumsum|segment"
        r"|(?<![a-z])(add|sub|rsub|mul|div|exp|pow|neg|mean|sum|max|amax|min|where|masked|clamp|eq|ne|lt|le|gt|ge"
        r"|logical|bitwise|isnan|any|all|cos|sin|addcmul|erf|log|abs)_?(?![a-z])",
    ),
)
"""The first match decides."""


def class_of(name: str) -> str:
    """The one of CLASSES that a kernel's name (on a CPU: an operator's) says."""
    if INDUCTOR.match(name) and not _TEMPLATE.match(name):
        return ELEMENTWISE
    lowered = name.lower()
    return next((kind for kind, words in _WORDS if re.search(words, lowered)), OTHER)


def added(launches: Iterable[tuple[str, int, float]]) -> dict[str, tuple[int, float]]:
    """Sums of launches and seconds by name, of (name, launches, seconds)."""
    sums: dict[str, tuple[int, float]] = {}
    for name, count, seconds in launches:
        counted, taken = sums.get(name, (0, 0.0))
        sums[name] = counted + count, taken + seconds
    return sums


def by_class(kernels: Kernels) -> dict[str, tuple[int, float]]:
    """Launches and seconds of each class present, in the order of CLASSES."""
    classes = added((class_of(name), count, seconds) for name, (count, seconds) in kernels.items())
    return {kind: classes[kind] for kind in CLASSES if kind in classes}


def shares_by_class(kernels: Kernels) -> dict[str, float]:
    """Each class's seconds / all kernels' seconds."""
    classes = by_class(kernels)
    whole = sum(seconds for _, seconds in classes.values())
    return {kind: seconds / whole for kind, (_, seconds) in classes.items()}
