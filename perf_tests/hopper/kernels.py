"""Single kernels on their own: what the machine's limit is, and which of several ways is the fastest.

Every entry is one kernel at the sizes of XLM-RoBERTa-base, on random numbers in bfloat16. The ways take
turns; a median over turns of the device's microseconds. A way that fails has its error in place of a number.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from xenc.errors import first_line
from xenc.kernels.packed_attention import on_cuda

HIDDEN, INNER, HEADS = 768, 3072, 12

TOKENS: Final = (8192, 16_384, 32_768)

DOCUMENTS: Final = (64, 145, 386, 512)
"""Tokens of each document: a sentence pair, a rank request's, the seed workload's mean, the longest."""

TURNS, LAUNCHES = 9, 8

Ways = dict[str, Callable[[], object]]


def all_kernels(say: Callable[[str], object], time_left: Callable[[], bool]) -> list[dict[str, Any]]:
    """One entry per kernel, size and way: its microseconds and TFLOP/s or GB/s, or the problem."""
    entries: list[dict[str, Any]] = []
    for kernel, size, work, make in (*_limits(), *_products(), *_attentions()):
        if not time_left():
            entries.append({"kernel": kernel, "size": size, "problem": "no time was left"})
            continue
        found = _compared(make)
        for way, (microseconds, problem) in found.items():
            rate = None if microseconds is None else work / microseconds / 1e6
            entries.append({
                "kernel": kernel, "size": size, "way": way, "us": microseconds, "tera_per_s": rate,
                "problem": problem,
            })  # fmt: skip
        said = ", ".join(
            f"{way} {problem or f'{microseconds:.1f} us ({work / microseconds / 1e6:,.1f} T/s)'}"
            for way, (microseconds, problem) in found.items()
        )
        say(f"  {kernel}, {size}: {said}")
    return entries


@torch.inference_mode()
def _compared(make: Callable[[], Ways]) -> dict[str, tuple[float | None, str | None]]:
    """Microseconds of a launch of each way, or why it has none."""
    found: dict[str, tuple[float | None, str | None]] = {}
    try:
        ways = make()
    except Exception as error:
        return {"": (None, f"{type(error).__name__}: {first_line(error)}")}
    for way, run in list(ways.items()):
        try:
            run()
            torch.cuda.synchronize()
        except Exception as error:
            found[way] = None, f"{type(error).__name__}: {first_line(error)}"
            del ways[way]
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(TURNS + 1):
        for way, run in ways.items():
            taken[way].append(_microseconds(run))
    return {way: (statistics.median(each[1:]), None) for way, each in taken.items()} | found


def _microseconds(run: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(200_000)  # the host is ahead when the first launch begins
    begin.record()
    for _ in range(LAUNCHES):
        run()
    end.record()
    torch.cuda.synchronize()
    return 1000 * begin.elapsed_time(end) / LAUNCHES


Kernel = tuple[str, str, float, Callable[[], Ways]]
"""Kernel, size, FLOPs or bytes, and its ways."""


def _limits() -> Iterator[Kernel]:
    side = 8192

    def product() -> Ways:
        left, right = (_random(side, side) for _ in range(2))
        return {"cuBLAS": lambda: left @ right}

    def copy() -> Ways:
        source = torch.empty(2**29, dtype=torch.bfloat16, device="cuda").normal_()
        target = torch.empty_like(source)
        return {"copy": lambda: target.copy_(source)}

    yield "largest product", f"{side} x {side} x {side}", 2.0 * side**3, product
    yield "copy, bytes read and written", "2 x 1 GiB", 2.0 * 2**30, copy


def _products() -> Iterator[Kernel]:
    for tokens in TOKENS:
        for name, inputs, outputs in (
            ("query, key, value", HIDDEN, 3 * HIDDEN), ("output", HIDDEN, HIDDEN), ("down", INNER, HIDDEN),
            ("up and GELU", HIDDEN, INNER),
        ):  # fmt: skip
            flops = 2.0 * tokens * inputs * outputs
            yield name, f"{tokens:,} tokens", flops, partial(_ways_of_product, name, tokens, inputs, outputs)


def _ways_of_product(name: str, tokens: int, inputs: int, outputs: int) -> Ways:
    hidden, weight, bias = _random(tokens, inputs), _random(outputs, inputs) / 16, _random(outputs)
    linear = partial(functional.linear, hidden, weight, bias)
    eights = _eight_bits(hidden, weight)
    if name == "query, key, value":
        parts = [*zip(weight.chunk(3), bias.chunk(3), strict=True)]
        return {
            "joint": linear,
            "apart": lambda: [functional.linear(hidden, *part) for part in parts],
            "joint, float8": eights,
        }
    if name != "up and GELU":
        return {"cuBLAS": linear, "float8": eights}
    raised, activated = linear(), torch.empty_like(linear())
    return {
        "product alone": linear,
        "then GELU": lambda: functional.gelu(linear()),
        "GELU alone": lambda: torch.ops.aten.gelu.out(raised, out=activated),
        "cuBLASLt epilogue": lambda: torch._addmm_activation(bias, hidden, weight.t(), use_gelu=True),
        **_triton_products(hidden, weight, bias),
        "float8 alone": eights,
    }


def _triton_products(hidden: Tensor, weight: Tensor, bias: Tensor) -> Ways:
    try:
        from perf_tests.hopper.candidates import triton_product as candidate
    except ImportError:
        return {}
    run = candidate.product_gelu
    return {
        f"Triton {number}": partial(run, hidden, weight, bias, config=config)
        for number, config in enumerate(candidate.CONFIGS)
    }


def _eight_bits(hidden: Tensor, weight: Tensor) -> Callable[[], object]:
    """A product alone in float8, scaled by row, as torchao calls it; quantising is not part of it."""
    left, right = (part.to(torch.float8_e4m3fn) for part in (hidden, weight))
    scale_left = torch.ones(left.shape[0], 1, device="cuda")
    scale_right = torch.ones(1, right.shape[0], device="cuda")
    return lambda: torch._scaled_mm(
        left, right.t(), scale_a=scale_left, scale_b=scale_right, out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )  # fmt: skip


def _attentions() -> Iterator[Kernel]:
    for each in DOCUMENTS:
        documents = TOKENS[1] // each
        flops = 4.0 * documents * each**2 * HIDDEN
        yield "attention", f"{documents} x {each} tokens", flops, partial(_ways_of_attention, documents, each)


def _ways_of_attention(documents: int, each: int) -> Ways:
    tokens, size = documents * each, HIDDEN // HEADS
    joint = _random(tokens, 3, HEADS, size)
    query, key, value = joint.unbind(1)
    bounds = torch.arange(0, tokens + 1, each, dtype=torch.int32, device="cuda")
    longest = 512
    scale = size**-0.5
    call = (query, key, value, (bounds, bounds), (longest, longest), scale)
    fitting = (query, key, value, (bounds, bounds), (each, each), scale)
    apart = [part.contiguous() for part in joint.unbind(1)]
    rows = [
        part.reshape(documents, each, HEADS, size).transpose(1, 2).contiguous() for part in joint.unbind(1)
    ]
    return {
        "FlashAttention-2": lambda: on_cuda(*call),
        "the same, the longest known": lambda: on_cuda(*fitting),
        "cuDNN": lambda: _cudnn(query, key, value, bounds, longest, scale),
        "cuDNN, no views": lambda: _cudnn(*apart, bounds, longest, scale),
        "cuDNN on rows of one length": lambda: _by_sdpa(rows),
        **_triton_attentions(query, key, value, bounds, longest, scale),
    }


def _cudnn(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float) -> Tensor:
    attended: Tensor = torch.ops.aten._cudnn_attention_forward(
        query, key, value, None, bounds, bounds, longest, longest, False, 0.0, False, False, scale=scale
    )[0]
    return attended


def _by_sdpa(rows: list[Tensor]) -> Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return functional.scaled_dot_product_attention(*rows)


def _triton_attentions(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float
) -> Ways:
    try:
        from perf_tests.hopper.candidates import triton_attention as candidate
    except ImportError:
        return {}
    run = candidate.varlen_attention
    return {
        f"Triton {number}": partial(run, query, key, value, bounds, longest, scale, config=config)
        for number, config in enumerate(candidate.CONFIGS)
    }


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def floor_seconds(entries: list[dict[str, Any]], tokens: int, ways: Mapping[str, str]) -> float | None:
    """Seconds of one layer's products alone, at so many tokens, or None if one was not measured.

    Args:
        ways: kernel -> the way to count.
    """
    found = {
        entry["kernel"]: entry["us"]
        for entry in entries
        if entry.get("us") is not None and entry["size"] == f"{tokens:,} tokens"
        and ways.get(entry["kernel"]) == entry["way"]
    }  # fmt: skip
    return sum(found.values()) / 1e6 if set(found) == set(ways) else None
