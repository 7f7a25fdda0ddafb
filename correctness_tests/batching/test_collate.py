"""The padded collate against padding by hand: nested Python lists."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from xenc import ModelError
from xenc.batching.padded_collate import Collator, PaddedBatch
from xenc.batching.plan import BatchPlan
from xenc.text.tokens import TokenizedPairs

PAD_ID = 7
CPU = torch.device("cpu")


def collator(**changes: object) -> Collator:
    return Collator(**{"pad_id": PAD_ID, "has_token_types": True, "device": CPU, **changes})


def collated(
    rows: list[list[int]], plan: BatchPlan, types: list[list[int]] | None = None, **changes: object
) -> PaddedBatch:
    tokens = TokenizedPairs(input_ids=rows, token_type_ids=types)
    return collator(**changes).collate(tokens.of_rows(plan.rows), plan)


def padded(rows: list[list[int]], batch: BatchPlan, fill: int) -> list[list[int]]:
    """The batch's rows, each padded to its length; then the dummy rows."""
    real = [rows[row] + [fill] * (batch.length - len(rows[row])) for row in batch.rows]
    return real + [[fill] * batch.length] * (batch.batch_size - len(real))


def attended(rows: list[list[int]], batch: BatchPlan) -> list[list[int]]:
    counts = [len(rows[row]) for row in batch.rows] + [0] * (batch.batch_size - len(batch.rows))
    return [[int(position < max(1, count)) for position in range(batch.length)] for count in counts]


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], BatchPlan]:
    """Rows of a request, and a batch of some of them in some order."""
    length = draw(st.integers(1, 12))
    rows = draw(st.lists(st.lists(st.integers(0, 99), max_size=length), min_size=1, max_size=6))
    picked = draw(st.permutations(range(len(rows))))[: draw(st.integers(1, len(rows)))]
    return rows, BatchPlan(tuple(picked), len(picked) + draw(st.integers(0, 3)), length)


@given(batches())
@example(([[]], BatchPlan((0,), 1, 1)))
@example(([[1, 2], [3]], BatchPlan((1, 0), 3, 2)))
def test_the_collate_equals_padding_by_hand(case):
    rows, plan = case
    types = [[position % 2 for position in range(len(row))] for row in rows]
    before = deepcopy((rows, types))
    batch = collated(rows, plan, types)
    assert (rows, types) == before
    assert batch.input_ids.tolist() == padded(rows, plan, PAD_ID)
    assert batch.attention_mask.tolist() == attended(rows, plan)
    assert batch.token_type_ids.tolist() == padded(types, plan, 0)
    assert batch.shape == (plan.batch_size, plan.length)
    for tensor in (batch.input_ids, batch.attention_mask, batch.token_type_ids):
        assert (tensor.dtype, tensor.device) == (torch.int64, CPU)


def test_token_types_are_zero_where_the_tokenizer_gave_none_and_none_where_the_model_takes_none():
    case = [[1, 2, 3]], BatchPlan((0,), 2, 4)
    assert collated(*case).token_type_ids.tolist() == [[0] * 4] * 2
    assert collated(*case, [[1] * 3], has_token_types=False).token_type_ids is None


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (4, 4)])
def test_warm_up_runs_on_rows_as_long_as_the_batch(shape):
    batch = collator().dummy(shape)
    assert batch.shape == shape
    assert batch.attention_mask.min() == 1
    assert batch.input_ids.unique().tolist() == [PAD_ID]


def test_a_dummy_row_is_made_of_the_token_that_every_pair_must_have():
    batch = collated([[1, 3], [3]], BatchPlan((0, 1), 3, 3), [[1, 1], [1]], required_id=3)
    assert batch.input_ids.tolist() == [[1, 3, PAD_ID], [3, PAD_ID, PAD_ID], [3, PAD_ID, PAD_ID]]
    assert batch.attention_mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert batch.token_type_ids.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert collator(required_id=3).dummy((2, 3)).input_ids.unique().tolist() == [3]
    with pytest.raises(ModelError, match=r"no <eos> \(3\)"):
        collated([[1, 2]], BatchPlan((0,), 1, 2), required_id=3)
