"""xenc/kernels/triton_bias.py on a CPU, by Triton's interpreter: a program, not a test.

See interpreted_attention.py.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from dataclasses import replace
from typing import Any

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from correctness_tests.kernels.attention_cases import Case
from correctness_tests.kernels.interpreted_attention import CASES, SOME, complete_the_interpreter
from correctness_tests.kernels.test_biased_attention import TERMS, Biased, reaching
from xenc.kernels.packed_attention import NO_WINDOW
from xenc.kernels.triton_attention import Config
from xenc.kernels.triton_bias import biased_varlen_attention

SMALL = (Config(16, 16, 4, 2), Config(32, 32, 4, 2))
"""Tiles that short documents have several of."""

BIASED = st.builds(
    Biased,
    case=st.builds(
        lambda case, heads: replace(case, heads=heads, causal=False, window=NO_WINDOW),
        CASES,
        st.sampled_from([(1, 1), (3, 3)]),
    ),
    buckets=st.sampled_from([1, 9, 64]),
    terms=st.sets(st.sampled_from(TERMS), min_size=1).map(lambda some: tuple(sorted(some))),
)


def by_triton(config: Config) -> Any:
    """In place of the operator, which is told the longest document too."""
    return lambda query, key, value, bounds, _, *how: biased_varlen_attention(
        query, key, value, bounds, *how, config=config
    )


@SOME
@given(case=BIASED, config=st.sampled_from(SMALL))
@example(Biased(case=Case(lengths=(150, 1, 0), dtype=torch.bfloat16)), Config(64, 64, 8, 2))
@example(Biased(case=Case(lengths=(70, 64), dtype=torch.float16), terms=("keys",)), SMALL[1])
@example(Biased(case=Case(lengths=(70, 64), dtype=torch.float16), terms=("queries",)), SMALL[1])
@example(Biased(case=Case(lengths=(70, 64), dtype=torch.bfloat16), terms=("numbers",)), SMALL[1])
def attends(case: Biased, config: Config) -> None:
    case.assert_right(by_triton(config))


@SOME
@given(
    case=BIASED,
    before=st.lists(st.integers(0, 40), max_size=2),
    after=st.lists(st.integers(0, 40), max_size=2),
    config=st.sampled_from(SMALL),
)
@example(Biased(case=Case(lengths=(45,), dtype=torch.bfloat16)), [13], [40], SMALL[1])
def no_bit_depends_on_neighbours(case: Biased, before: list[int], after: list[int], config: Config) -> None:
    """Which are not numbers."""
    attend = reaching(80, by_triton(config))
    assert torch.equal(case.attend_among(before, after, attend), case.attend(attention=attend))


if __name__ == "__main__":
    complete_the_interpreter()
    attends()
    no_bit_depends_on_neighbours()
