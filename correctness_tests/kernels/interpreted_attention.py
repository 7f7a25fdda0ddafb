"""xenc/kernels/triton_attention.py on a CPU, by Triton's interpreter: a program, not a test.

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
from xenc.kernels.packed_attention import NO_WINDOW
from xenc.kernels.triton_attention import Config, varlen_attention

SOME = settings(max_examples=12, deadline=None, derandomize=True, database=None)

SMALL = (Config(16, 32, 4, 2), Config(32, 16, 4, 2))

CASES = st.builds(
    Case,
    lengths=st.lists(
        st.one_of(st.integers(0, 3), st.sampled_from((15, 16, 17, 32, 33)), st.integers(0, 70)),
        min_size=1, max_size=4,
    ).filter(any).map(tuple),
    heads=st.sampled_from([(1, 1), (2, 2), (2, 1), (3, 1)]),
    causal=st.booleans(),
    window=st.one_of(st.just(NO_WINDOW), st.integers(0, 4), st.integers(0, 80)),
    scale=st.sampled_from([None, 1.0]),
    laid_out=st.sampled_from(["apart", "joint", "transposed"]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16]),
    seed=st.integers(0, 99),
)  # fmt: skip


def by_triton(config: Config | None):
    """In place of the operator, which is told the longest document too."""
    return lambda query, key, value, bounds, _, *how: varlen_attention(
        query, key, value, bounds, *how, config=config
    )


@SOME
@given(case=CASES, config=st.sampled_from((None, *SMALL)))
@example(Case(lengths=(64, 1, 128, 0, 0), size=64, dtype=torch.float16), None)
@example(Case(lengths=(150, 7), heads=(1, 1), dtype=torch.bfloat16), None)
@example(Case(lengths=(33, 40), dtype=torch.float16, window=3), SMALL[1])
@example(Case(lengths=(33, 40), dtype=torch.float16, causal=True), SMALL[1])
@example(Case(lengths=(1,) * 300, heads=(1, 1), dtype=torch.float16), SMALL[0])
def attends(case: Case, config: Config | None) -> None:
    case.assert_right(by_triton(config))


@SOME
@given(
    case=CASES,
    before=st.lists(st.integers(0, 40), max_size=2),
    after=st.lists(st.integers(0, 40), max_size=2),
    config=st.sampled_from(SMALL),
)
def no_bit_depends_on_neighbours(case: Case, before: list[int], after: list[int], config: Config) -> None:
    """Which are not numbers."""
    together = case.attend_among(before, after, by_triton(config))
    assert torch.equal(together, case.attend(*case.parts(), by_triton(config)))


def complete_the_interpreter() -> None:
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
    complete_the_interpreter()
    attends()
    no_bit_depends_on_neighbours()
