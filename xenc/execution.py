"""`Execution`: how pairs are scored, as one frozen, checked dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, get_args

from .errors import ExecutionError

Layout = Literal["padded", "bucketed", "packed"]
Attention = Literal["eager", "sdpa"]
Quantization = Literal["int8", "float8"]
Products = Literal["torch", "onednn", "xenc", "cublaslt"]
CompileMode = Literal["auto", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
Buckets = int | Literal["powers-of-two", "max-length"] | tuple[int, ...]
TokenBudgets = int | tuple[int, ...] | None

_DEFAULT_BUCKETS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How pairs are batched, padded, compiled and quantized.

    Attributes:
        layout: "padded" pads each batch to its longest pair; "bucketed" pads it to the next allowed length
            and fills short batches with dummy rows, so that there are few shapes; "packed" concatenates
            pairs in batches of a fixed number of tokens, without padding between them.
        attention: transformers' attention implementation for padded and bucketed batches, "eager" or "sdpa"
            (PyTorch's fused attention). Packed batches have their own operator.
        sort: batch pairs of similar token counts together, longest first; packed batches need no sorting.
            Scores return in the caller's order either way.
        buckets: allowed padded lengths of bucketed batches, in tokens: an int for its multiples up to
            max_length, "powers-of-two" for 16, 32, 64 and so on, "max-length", or a tuple of lengths.
        token_budgets: allowed sizes of packed batches, in tokens: an int for the largest, from which smaller
            ones are derived, a tuple of sizes, or None for the device's default.
        deterministic: batch-invariant (bitwise) scores: packed batches of a single size, so that a score
            does not depend on the other pairs in its batch or on its position.
        share_prefix: compute the prefix that all pairs of a request share (instruction and query of a causal
            model) only once. For packed batches, which requests then do not share. Keys and values of
            max_length tokens stay in memory.
        quantize: None for the model's own dtype; "int8" or "float8" for the encoder's matrix products in
            eight bits, with weights scaled by row and activations dynamically by token. The model itself is
            not changed. "float8" needs CUDA, compute capability 8.9 and a bfloat16 model; "int8" is
            for CPUs, and needs torchao where there is no VNNI. With "float8" call `warmup` again after
            writing through a parameter's `.data`.
        products: the implementation of the encoder's matrix products in packed batches. On a CPU: "torch",
            "onednn", or "xenc" for our own kernels, which keep a reordered copy of the weights; None takes
            the fastest, measured once and named in the warm-up report. On CUDA: "torch", which None takes,
            or "cublaslt" for bfloat16 and float16: query, key and value are one product, on a copy of their
            weights, and GELU is applied inside a product, in its tanh form. With "cublaslt" call `warmup`
            again after writing through the `.data` of a query, key or value layer's parameter.
        compile_mode: `torch.compile`'s mode, or None to run eagerly. "auto" is "reduce-overhead" (CUDA
            graphs) on CUDA, unless a prefix is shared, and "default" elsewhere.
        dynamic: `torch.compile`'s dynamic: True for one graph for all shapes, False for one per shape, None
            to let PyTorch start static and generalize.
        strict: raise `CompileError` if something compiles after warm-up or cannot be; otherwise warn once.

    Raises:
        ExecutionError: an invalid value, or two that contradict each other.
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
    compile_mode: CompileMode | None = "auto"
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
        """Refuse settings of one layout with another."""
        if self.buckets != _DEFAULT_BUCKETS and self.layout != "bucketed":
            raise ExecutionError(f"buckets={self.buckets!r} are for layout='bucketed', not {self.layout!r}.")
        packed_only = {
            f"token_budgets={self.token_budgets!r}": self.token_budgets is not None,
            "deterministic": self.deterministic,
            "share_prefix": self.share_prefix,
        }
        for setting, chosen in packed_only.items():
            if chosen and self.layout != "packed":
                raise ExecutionError(f"{setting} is for layout='packed', not {self.layout!r}.")
        if self.deterministic and isinstance(self.token_budgets, tuple) and len(self.token_budgets) > 1:
            raise ExecutionError(
                f"deterministic with token_budgets={self.token_budgets!r}: a matrix product of another size "
                "may round differently. Give one budget."
            )
        if self.share_prefix and self.deterministic:
            raise ExecutionError(
                "deterministic with share_prefix: where a prefix ends depends on the other pairs, and so "
                "does rounding. Give one of the two."
            )

    def _check_graph(self) -> None:
        """Refuse products and compile modes that the other settings exclude."""
        own = self.products not in (None, "torch")
        if own and self.layout != "packed" and (self.quantize is None or self.products != "xenc"):
            raise ExecutionError(
                f"products={self.products!r} is for layout='packed', not {self.layout!r}. Use products=None."
            )
        if own and self.quantize == "float8":
            raise ExecutionError(f"products={self.products!r} with quantize='float8': choose one of the two.")
        if own and self.products != "xenc" and self.quantize is not None:
            raise ExecutionError(
                f"products={self.products!r} with quantize={self.quantize!r}: in eight bits there are only "
                '"xenc" and torchao. Use products=None.'
            )
        if self.compile_mode is not None and self.layout == "padded":
            raise ExecutionError(
                f"compile_mode={self.compile_mode!r} with layout='padded': padding to the longest pair "
                "gives every batch a shape of its own, which cannot be warmed up. Use layout='bucketed', "
                "or compile_mode=None."
            )

    def compile_mode_on(self, device_type: str) -> str | None:
        """`compile_mode` on a device of this type ("cpu", "cuda"), with "auto" replaced by what it means."""
        if self.compile_mode != "auto":
            return self.compile_mode
        return "reduce-overhead" if device_type == "cuda" and not self.share_prefix else "default"

    @property
    def graph_settings(self) -> tuple[object, ...]:
        """The settings that a compiled graph depends on; executions with equal ones can share it."""
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
