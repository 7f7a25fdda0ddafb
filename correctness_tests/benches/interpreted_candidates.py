"""Triton kernels of perf_tests/hopper/candidates on a CPU, by Triton's interpreter: a program, not a test.

TRITON_INTERPRET must be 1 before Triton is imported, so this needs a process of its own.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from triton.runtime import interpreter

from correctness_tests.kernels.attention_cases import Case
from perf_tests.hopper.candidates import triton_attention as attention
from perf_tests.hopper.candidates import triton_product as product

SOME = settings(max_examples=6, deadline=None, derandomize=True, database=None)

SMALL = tuple(
    attention.Config(block_m, block_n, 4, 2, peel=peel, search=search)
    for block_m, block_n in ((16, 32), (32, 16))
    for peel in (True, False)
    for search in (True, False)
)

CASES = st.builds(
    Case,
    lengths=st.lists(
        st.one_of(st.integers(0, 3), st.sampled_from((15, 16, 17, 32, 33)), st.integers(0, 70)),
        min_size=1, max_size=4,
    ).filter(any).map(tuple),
    heads=st.sampled_from([(1, 1), (2, 2), (2, 1), (3, 1)]),
    causal=st.booleans(),
    window=st.one_of(st.just(attention.NO_WINDOW), st.integers(0, 4), st.integers(0, 80)),
    scale=st.sampled_from([None, 1.0]),
    laid_out=st.sampled_from(["apart", "joint", "transposed"]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16]),
    seed=st.integers(0, 99),
)  # fmt: skip


def by_triton(config: attention.Config | None):
    return lambda *arguments: attention.varlen_attention(*arguments, config=config)


@SOME
@given(case=CASES, config=st.sampled_from((None, *SMALL)))
@example(Case(lengths=(64, 1, 128, 0, 0), size=64, dtype=torch.float16), None)
@example(Case(lengths=(150, 7), heads=(1, 1), dtype=torch.bfloat16), None)
@example(Case(lengths=(128, 127), heads=(1, 1), dtype=torch.float16), attention.SHORT_CONFIGS[0])
def attends(case: Case, config: attention.Config | None) -> None:
    case.assert_right(by_triton(config))


@SOME
@given(
    case=CASES,
    before=st.lists(st.integers(0, 40), max_size=2),
    after=st.lists(st.integers(0, 40), max_size=2),
    alone=st.sampled_from(SMALL[:4]),
    among=st.sampled_from(SMALL[:4]),
)
def no_bit_depends_on_neighbours(case: Case, before: list[int], after: list[int], alone, among) -> None:
    """Which are not numbers. Nor on a search, nor on whether full blocks of keys are masked."""
    together = case.attend_among(before, after, by_triton(among))
    assert torch.equal(together, case.attend(*case.parts(), by_triton(alone)))


@SOME
@given(
    rows=st.integers(1, 70),
    inputs=st.sampled_from((64, 192)),
    outputs=st.sampled_from((128, 256, 384)),
    dtype=st.sampled_from((torch.float16, torch.bfloat16)),
    activation=st.sampled_from(("none", "gelu", "gelu_short")),
    config=st.sampled_from(
        (*product.CONFIGS, product.Config(16, 128, 64, 4, 2), product.Config(32, 32, 32, 4, 2, halves=False))
    ),
)
def multiplies(rows, inputs, outputs, dtype, activation, config) -> None:
    generator = torch.Generator().manual_seed(rows)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype)
        for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    hidden = hidden * (2 * inputs**-0.5)
    exact = hidden.double() @ weight.double().T + bias.double()
    if activation != "none":
        exact = torch.nn.functional.gelu(exact)
    out = product.product_gelu(hidden, weight, bias, activation, config)
    assert (out.dtype, out.shape) == (dtype, exact.shape)
    torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps, atol=2e-6)


def _complete_the_interpreter() -> None:
    """It takes bfloat16 for its bits in products, and new NumPy wants arrays of no dimension as integers."""
    patch_tensor, dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot

    def patched(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def widened(handle):
        if handle.dtype.scalar != interpreter.tl.bfloat16:
            return handle
        bits = handle.data.astype("uint32") << 16
        return interpreter.TensorHandle(bits.view("float32"), interpreter.tl.float32)

    interpreter._patch_lang_tensor = patched
    interpreter.InterpreterBuilder.create_dot = lambda self, a, b, *rest: dot(
        self, widened(a), widened(b), *rest
    )


if __name__ == "__main__":
    _complete_the_interpreter()
    attends()
    no_bit_depends_on_neighbours()
    multiplies()
