"""What kind of work a kernel does, by its name."""

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
"""Softmax and products of attention that is not one fused kernel count as what they are. Looking up rows, as
in an embedding, is a copy."""

_TEMPLATE: Final = re.compile(r"(graph_\d+_)?(triton_tem_|cpp_\w*(gemm|bmm|flex_attention))")
"""Inductor names a kernel after all operators that it was made of, and only a template's kernel runs the
product or the attention among them; the others are what stood around it."""

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
"""In the order in which they are asked."""


def class_of(name: str) -> str:
    """Which of CLASSES a kernel is, by its name: an operator's on a CPU, a CUDA kernel's on a GPU."""
    if INDUCTOR.match(name) and not _TEMPLATE.match(name):
        return ELEMENTWISE
    lowered = name.lower()
    return next((kind for kind, words in _WORDS if re.search(words, lowered)), OTHER)


def added(launches: Iterable[tuple[str, int, float]]) -> dict[str, tuple[int, float]]:
    """Launches and seconds by name, of (name, launches, seconds) that may have a name in common."""
    sums: dict[str, tuple[int, float]] = {}
    for name, count, seconds in launches:
        count_before, seconds_before = sums.get(name, (0, 0.0))
        sums[name] = count_before + count, seconds_before + seconds
    return sums


def by_class(kernels: Kernels) -> dict[str, tuple[int, float]]:
    """Launches and seconds of each class that there is, in the order of CLASSES."""
    classes = added((class_of(name), count, seconds) for name, (count, seconds) in kernels.items())
    return {kind: classes[kind] for kind in CLASSES if kind in classes}


def shares_by_class(kernels: Kernels) -> dict[str, float]:
    """Of each class that there is, its seconds / all kernels' seconds."""
    classes = by_class(kernels)
    whole = sum(seconds for _, seconds in classes.values())
    return {kind: seconds / whole for kind, (_, seconds) in classes.items()}
