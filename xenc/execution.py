"""Execution: one frozen record that says HOW pairs are scored, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, get_args

from .errors import ExecutionError

Layout = Literal["padded", "bucketed", "packed"]
Attention = Literal["eager", "sdpa"]
Quantization = Literal["int8", "float8"]
Products = Literal["torch", "onednn", "xenc"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
Buckets = int | Literal["powers-of-two", "max-length"] | tuple[int, ...]
TokenBudgets = int | tuple[int, ...] | None

_DEFAULT_BUCKETS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a list of pairs becomes scores.

    Attributes:
        layout: "padded" pads each batch to its longest pair; "bucketed" pads it up to the next allowed
            length and fills short batches with dummy rows, so that only a few shapes exist; "packed" lays
            pairs end to end in batches of a fixed number of tokens, without padding between them.
        attention: transformers' attention implementation of padded and bucketed batches, "eager" or "sdpa"
            (PyTorch's fused attention, FlashAttention where the device has it). Packed batches have
            an operator of their own.
        sort: batch pairs of similar token counts together, longest first; packed batches need no sorting.
            Scores return in the caller's order either way.
        buckets: allowed padded lengths of bucketed batches, in tokens. An int means its multiples up to
            max_length, "powers-of-two" means 16, 32, 64 and so on, "max-length" means that one alone, and a
            tuple is taken as it is.
        token_budgets: allowed sizes of packed batches, in tokens. An int is the largest, and smaller ones
            are derived from it; a tuple is taken as it is; None leaves the largest to the device.
        deterministic: packed batches of one size only, so that a pair's score is the same to the last bit
            whatever it shares its batch with, and wherever it stands.
        share_prefix: compute what all pairs of a request begin with once: instruction and query, which in a
            causal model do not depend on the document. For packed batches; a request's pairs share a batch
            with no other's, and one request of several queries shares what those have in common. The keys
            and values of a prefix of max_length tokens are held in memory.
        quantize: None for the model's own dtype; "int8" or "float8" for matrix products of the encoder's
            layers in eight bits, on weights scaled by row and on activations scaled by token as they come.
            "float8" needs CUDA, compute capability 8.9 and a model in bfloat16. The model itself stays as
            it is. On a processor with VNNI "int8" needs nothing installed, elsewhere torchao. Where no C++
            kernels could be built, call `warmup` again after writing through a parameter's `.data`.
        products: what multiplies by the weights of the encoder's layers on a processor, in packed batches:
            "torch", "onednn", or "xenc" for kernels of our own, which hold a second copy of those weights in
            the order they read them. None takes the fastest here, measured once; the warm-up report says it.
        compile_mode: `torch.compile`'s mode, or None to run eagerly.
        dynamic: `torch.compile`'s dynamic: True for one graph over all shapes, False for one per shape,
            None to let PyTorch start static and generalise.
        strict: raise `CompileError` when something compiles after warm-up; otherwise warn once.

    Raises:
        ExecutionError: a value that is not one of the above, or a contradiction between two of them.
    """

    layout: Layout = "packed"
    attention: Attention = "sdpa"
    sort: bool = True
    buckets: Buckets = _DEFAULT_BUCKETS
    token_budgets: TokenBudgets = None
    deterministic: bool = False
    share_prefix: bool = False
    quantize: Quantization | None = None
    products: Products | None = None
    compile_mode: CompileMode | None = "default"
    dynamic: bool | None = True
    strict: bool = False

    def __post_init__(self) -> None:
        _check_choice("layout", self.layout, get_args(Layout))
        _check_choice("attention", self.attention, get_args(Attention))
        _check_choice("quantize", self.quantize, (None, *get_args(Quantization)))
        _check_choice("products", self.products, (None, *get_args(Products)))
        _check_choice("compile_mode", self.compile_mode, (None, *get_args(CompileMode)))
        _check_choice("dynamic", self.dynamic, (True, False, None))
        _check_lengths("buckets", self.buckets, also=("powers-of-two", "max-length"))
        _check_lengths("token_budgets", self.token_budgets, also=(None,))
        self._check_batches()
        self._check_graph()

    def _check_batches(self) -> None:
        """What only one layout has."""
        if self.buckets != _DEFAULT_BUCKETS and self.layout != "bucketed":
            raise ExecutionError(f"buckets={self.buckets!r} are for layout='bucketed', not {self.layout!r}.")
        if self.layout != "packed" and (self.token_budgets is not None or self.deterministic):
            chosen = (
                "deterministic" if self.token_budgets is None else f"token_budgets={self.token_budgets!r}"
            )
            raise ExecutionError(f"{chosen} is for layout='packed', not {self.layout!r}.")
        if self.deterministic and isinstance(self.token_budgets, tuple) and len(self.token_budgets) > 1:
            raise ExecutionError(
                f"deterministic with token_budgets={self.token_budgets!r}: a matrix product of another size "
                "may round otherwise. Give one budget."
            )
        if self.share_prefix and self.layout != "packed":
            raise ExecutionError(f"share_prefix is for layout='packed', not {self.layout!r}.")
        if self.share_prefix and self.deterministic:
            raise ExecutionError(
                "deterministic with share_prefix: where a prefix ends depends on the other pairs, and so "
                "does rounding. Give one of the two."
            )

    def _check_graph(self) -> None:
        """What only a compiled graph has, and what cannot be one."""
        own = self.products in ("onednn", "xenc")
        if own and self.layout != "packed" and (self.quantize is None or self.products == "onednn"):
            raise ExecutionError(
                f"products={self.products!r} is for layout='packed', not {self.layout!r}. Use products=None."
            )
        if own and self.quantize == "float8":
            raise ExecutionError(
                f"products={self.products!r} with quantize='float8': both say what multiplies. Choose one."
            )
        if self.products == "onednn" and self.quantize is not None:
            raise ExecutionError(
                f"products='onednn' with quantize={self.quantize!r}: in eight bits \"xenc\" or torchao "
                "multiplies. Use products=None."
            )
        if self.compile_mode is not None and self.layout == "padded":
            raise ExecutionError(
                f"compile_mode={self.compile_mode!r} with layout='padded': padding to the longest pair "
                "gives every batch a shape of its own, which cannot be warmed up. Use layout='bucketed', "
                "or compile_mode=None."
            )

    @property
    def graph_settings(self) -> tuple[object, ...]:
        """What the compiled graph depends on; executions that agree here can share one."""
        padded = self.layout in ("padded", "bucketed")
        return (
            padded or self.layout, not padded or self.attention, self.share_prefix, self.compile_mode,
            self.dynamic, self.quantize, self.products,
        )  # fmt: skip


def _check_choice(field: str, value: object, valid: tuple[object, ...]) -> None:
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in valid):
        raise ExecutionError(f"{field}={value!r} is not one of {', '.join(map(repr, valid))}.")


def _check_lengths(field: str, value: object, also: tuple[object, ...]) -> None:
    if any(value is choice or (isinstance(value, str) and value == choice) for choice in also):
        return
    lengths = (value,) if isinstance(value, int) else value
    if not isinstance(lengths, tuple) or not lengths:
        raise ExecutionError(
            f"{field}={value!r}: give a number, {' or '.join(map(repr, also))}, or a non-empty tuple."
        )
    for length in lengths:
        if isinstance(length, bool) or not isinstance(length, int) or length <= 0:
            raise ExecutionError(f"{field}={value!r}: {length!r} is not a positive number of tokens.")
    if any(left >= right for left, right in pairwise(lengths)):
        remedy = tuple(sorted(set(lengths)))
        raise ExecutionError(f"{field}={value!r} must strictly ascend; did you mean {remedy}?")
