"""Single kernels on their own: what the machine's limit is, and which of several ways is the fastest.

Every entry is one kernel at the sizes of XLM-RoBERTa-base, on random numbers in bfloat16. The ways take
turns; a median over turns of the device's microseconds. A way that fails has its error in place of a number.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from xenc.errors import first_line
from xenc.kernels.biased_attention import biased_by_sdpa
from xenc.kernels.packed_attention import NO_WINDOW, by_pytorch

HIDDEN, INNER, HEADS = 768, 3072, 12

TOKENS: Final = (8192, 16_384, 32_768)

DOCUMENTS: Final = (64, 145, 386, 512)
"""Tokens of each document: a sentence pair, a rank request's, the seed workload's mean, the longest."""

TURNS, LAUNCHES = 9, 8

Ways = dict[str, Callable[[], object]]

Kernel = tuple[str, str, float, Callable[[], tuple[Ways, Tensor | None]]]
"""Kernel, size, FLOPs or bytes; and what makes its ways and the float32 result of those that answer it."""


def all_kernels(say: Callable[[str], object], time_left: Callable[[], bool]) -> list[dict[str, Any]]:
    """One entry per kernel, size and way: microseconds, TFLOP/s or TB/s, and relative error; or why not."""
    entries: list[dict[str, Any]] = []
    for kernel, size, work, make in every_kernel():
        if not time_left():
            entries.append({"kernel": kernel, "size": size, "problem": "no time was left"})
            continue
        found = _compared(make)
        say(f"  {kernel}, {size}: " + "; ".join(f"{way} {_said(each)}" for way, each in found.items()))
        for way, each in found.items():
            rate = work / each["us"] / 1e6 if each["problem"] is None else None
            entries.append({"kernel": kernel, "size": size, "way": way, "tera_per_s": rate, **each})
    return entries


def every_kernel() -> Iterator[Kernel]:
    """What is measured, in order."""
    return chain(_limits(), _attentions(), _biased_attentions(), _products())


def _said(found: dict[str, Any]) -> str:
    if found["problem"] is not None:
        return str(found["problem"])
    return f"{found['us']:.1f} us" + ("" if found["error"] is None else f" (error {found['error']:.1e})")


@torch.inference_mode()
def _compared(make: Callable[[], tuple[Ways, Tensor | None]]) -> dict[str, dict[str, Any]]:
    """Microseconds of a launch of each way and the error of its answer, or why it has none."""
    try:
        ways, exact = make()
    except Exception as error:
        return {
            "none": {"us": None, "error": None, "problem": f"{type(error).__name__}: {first_line(error)}"}
        }
    found: dict[str, dict[str, Any]] = {}
    for way, run in ways.items():
        found[way] = {"us": None, "error": None, "problem": None}
        try:
            found[way]["error"] = _error(run(), exact)
            torch.cuda.synchronize()
        except Exception as error:
            found[way]["problem"] = f"{type(error).__name__}: {first_line(error)}"
    taken: dict[str, list[float]] = {way: [] for way, each in found.items() if each["problem"] is None}
    for _ in range(TURNS + 1):
        for way, seen in taken.items():
            seen.append(_microseconds(ways[way]))
    for way, seen in taken.items():
        found[way]["us"] = statistics.median(seen[1:])
    return found


def _error(answer: object, exact: Tensor | None) -> float | None:
    """|answer - exact| / |exact|, if it has the same numbers."""
    if exact is None or not isinstance(answer, Tensor) or answer.numel() != exact.numel():
        return None
    return float((answer.float().reshape(exact.shape) - exact).norm() / exact.norm())


def _microseconds(run: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(200_000)  # the host is ahead when the first launch begins
    begin.record()
    for _ in range(LAUNCHES):
        run()
    end.record()
    torch.cuda.synchronize()
    return 1000 * begin.elapsed_time(end) / LAUNCHES


def _limits() -> Iterator[Kernel]:
    side = 8192

    def product() -> tuple[Ways, None]:
        left, right = (_random(side, side) for _ in range(2))
        return {"cuBLAS": lambda: left @ right}, None

    def copy() -> tuple[Ways, None]:
        source = torch.empty(2**29, dtype=torch.bfloat16, device="cuda").normal_()
        target = torch.empty_like(source)
        return {"copy": lambda: target.copy_(source)}, None

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


def _ways_of_product(name: str, tokens: int, inputs: int, outputs: int) -> tuple[Ways, Tensor]:
    hidden, weight, bias = _random(tokens, inputs), _random(outputs, inputs) / 16, _random(outputs)
    linear = partial(functional.linear, hidden, weight, bias)
    exact = functional.linear(hidden.float(), weight.float(), bias.float())
    eights = _eight_bits(hidden, weight)
    if name == "query, key, value":
        parts = [*zip(weight.chunk(3), bias.chunk(3), strict=True)]
        return {
            "joint": linear,
            "apart": lambda: [functional.linear(hidden, *part) for part in parts],
            "joint, float8": lambda: (eights(),),
        }, exact
    if name != "up and GELU":
        return {"cuBLAS": linear, "float8": lambda: (eights(),)}, exact
    raised, activated = linear(), torch.empty_like(linear())
    return {
        "product alone": lambda: (linear(),),
        "then GELU": lambda: functional.gelu(linear()),
        "GELU alone": lambda: (torch.ops.aten.gelu.out(raised, out=activated),),
        "cuBLASLt epilogue": lambda: torch._addmm_activation(bias, hidden, weight.t(), use_gelu=True),
        "float8 alone": lambda: (eights(),),
    }, functional.gelu(exact)


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


def _ways_of_attention(documents: int, each: int) -> tuple[Ways, Tensor]:
    tokens, size, longest = documents * each, HIDDEN // HEADS, DOCUMENTS[-1]
    parts = query, key, value = _random(tokens, 3, HEADS, size).unbind(1)
    bounds = torch.arange(0, tokens + 1, each, dtype=torch.int32, device="cuda")
    scale = size**-0.5
    packed = (*parts, (bounds, bounds))
    rows = [part.view(documents, each, HEADS, size).transpose(1, 2).contiguous() for part in parts]
    exact = functional.scaled_dot_product_attention(*(part.float() for part in rows)).transpose(1, 2)
    return {
        "FlashAttention-2": lambda: by_pytorch(*packed, (longest, longest), scale),
        "the same, the longest known": lambda: by_pytorch(*packed, (each, each), scale),
        "cuDNN on rows of one length": lambda: (_by_sdpa(rows),),
        **_by_triton(query, key, value, bounds, scale),
    }, exact


def _biased_attentions() -> Iterator[Kernel]:
    """With the bias of DeBERTa-v3: two more products for each pair of tokens."""
    for each in DOCUMENTS:
        documents = TOKENS[1] // each
        flops, size = 8.0 * documents * each**2 * HIDDEN, f"{documents} x {each} tokens"
        yield "attention with a bias", size, flops, partial(_ways_with_a_bias, documents, each)


def _ways_with_a_bias(documents: int, each: int) -> tuple[Ways, Tensor]:
    size, count, distances = HIDDEN // HEADS, 512, 2 * DOCUMENTS[-1] - 1
    query, key, value = _random(documents * each, 3, HEADS, size).unbind(1)
    bounds = torch.arange(0, len(query) + 1, each, dtype=torch.int32, device=query.device)
    buckets = (torch.arange(distances, device=query.device) * count // distances).int()
    keys, queries = _random(2, count, HEADS, size)
    scale = (3 * size) ** -0.5
    given = (query, key, value, bounds, scale, buckets, None, keys, queries)
    exactly = [part.float() for part in (query, key, value, keys, queries)]
    exact = biased_by_sdpa(*exactly[:3], bounds, scale, buckets, None, *exactly[3:])
    ways: Ways = {"written out, then SDPA": lambda: biased_by_sdpa(*given)}
    with suppress(ImportError):  # there is no Triton
        from xenc.kernels.triton_bias import biased_varlen_attention

        ways["Triton"] = lambda: biased_varlen_attention(*given)
    return ways, exact


def _by_sdpa(rows: list[Tensor]) -> Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return functional.scaled_dot_product_attention(*rows)


def _by_triton(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scale: float) -> Ways:
    """Our own; none where there is no Triton."""
    try:
        from xenc.kernels.triton_attention import varlen_attention
    except ImportError:
        return {}
    return {"Triton": lambda: varlen_attention(query, key, value, bounds, scale, False, NO_WINDOW)}


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


@torch.inference_mode()
def compile_all() -> None:
    """Run every way once, to fill the compiler's cache; errors come again when they are measured."""
    for _, _, _, make in every_kernel():
        ways: Ways = {}
        with suppress(Exception):
            ways, _ = make()
        for run in ways.values():
            with suppress(Exception):
                run()


if __name__ == "__main__":
    compile_all()
