"""The packed collate against documents laid end to end by hand: nested Python lists."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import accumulate

import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

from xenc.batching.packed_collate import PackedBatch, PackedCollator
from xenc.batching.plan import PackedPlan
from xenc.text.tokens import TokenizedPairs

PAD_ID = 7
CPU = torch.device("cpu")
number_as_roberta = XLMRobertaEmbeddings.create_position_ids_from_input_ids

Case = tuple[list[list[int]], PackedPlan]


def collator(**changes: object) -> PackedCollator:
    return PackedCollator(**{"pad_id": PAD_ID, "has_token_types": True, "device": CPU, **changes})


def collated(case: Case, types: list[list[int]] | None = None, **changes: object) -> PackedBatch:
    rows, plan = case
    tokens = TokenizedPairs(input_ids=rows, token_type_ids=types)
    return collator(**changes).collate(tokens.of_rows(plan.rows), plan)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Rows of a request, and a batch of some of them, with places and tokens to spare; padding among them."""
    max_seqlen = draw(st.integers(1, 9))
    row = st.lists(st.one_of(st.just(PAD_ID), st.integers(0, 9)), max_size=max_seqlen)
    rows = draw(st.lists(row, min_size=1, max_size=6))
    picked = draw(st.permutations(range(len(rows))))[: draw(st.integers(0, len(rows)))]
    spare = draw(st.integers(0 if picked else 1, 20))
    tokens = sum(max(1, len(rows[row])) for row in picked) + spare
    slots = len(picked) - -spare // max_seqlen + draw(st.integers(1, 3))
    return rows, PackedPlan(tuple(picked), tokens, slots, max_seqlen)


FULL = ([[1, 2], [3]], PackedPlan((1, 0), 3, 2, 2))
NO_TOKENS = ([[], [5, 6]], PackedPlan((0, 1), 6, 4, 2))
ONLY_PADDING = ([[PAD_ID, PAD_ID], [3, PAD_ID]], PackedPlan((0, 1), 4, 3, 2))
PADDING_WITHIN = ([[PAD_ID, 2, PAD_ID, 3], [1, PAD_ID, PAD_ID]], PackedPlan((1, 0), 12, 5, 4))


def documents(case: Case) -> list[list[int]]:
    """What the batch should hold, one list per document: its pairs, then padding in dummies."""
    rows, plan = case
    laid_out = [rows[row] or [PAD_ID] for row in plan.rows]
    left = plan.tokens - sum(map(len, laid_out))
    while left > 0:
        laid_out.append([PAD_ID] * min(left, plan.max_seqlen))
        left -= plan.max_seqlen
    return laid_out


def flat(rows: list[list[int]]) -> list[int]:
    return [value for row in rows for value in row]


def of_each(case: Case, number: Callable[[list[int]], list[int]]) -> list[int]:
    return flat([number(document) for document in documents(case)])


@given(cases(), st.booleans())
@example(FULL, False)
@example(NO_TOKENS, True)
@example(([[1]], PackedPlan((), 5, 4, 2)), False)
def test_ids_are_the_documents_end_to_end_and_cu_seqlens_their_starts(case, has_token_types):
    (_, plan), laid_out, batch = case, documents(case), collated(case, has_token_types=has_token_types)
    assert batch.input_ids.tolist() == flat(laid_out)
    starts = [0, *accumulate(map(len, laid_out))]
    assert batch.cu_seqlens.tolist() == starts + [plan.tokens] * (plan.max_sequences + 1 - len(starts))
    assert batch.max_seqlen == plan.max_seqlen


@given(cases(), st.integers(0, 5))
@example(FULL, 0)
@example(NO_TOKENS, 2)
@example(PADDING_WITHIN, 0)
def test_positions_restart_in_each_document(case, first):
    expected = of_each(case, lambda document: [first + index for index in range(len(document))])
    assert collated(case, first_position=first).position_ids.tolist() == expected


@given(cases())
@example(NO_TOKENS)
@example(ONLY_PADDING)
@example(PADDING_WITHIN)
def test_padding_takes_no_position_in_robertas_descendants(case):
    expected = of_each(case, lambda document: number_as_roberta(torch.tensor([document]), PAD_ID)[0].tolist())
    batch = collated(case, first_position=PAD_ID + 1, unnumbered_id=PAD_ID)
    assert batch.position_ids.tolist() == expected


@given(cases())
@example(FULL)
@example(NO_TOKENS)
@example(PADDING_WITHIN)
def test_token_types_stay_with_their_tokens_and_are_zero_in_dummies(case):
    rows, plan = case
    types = [[1 + index % 3 for index in range(len(row))] for row in rows]
    real = flat([types[row] or [0] for row in plan.rows])
    expected = real + [0] * (plan.tokens - len(real))
    before = deepcopy((rows, types))
    assert collated(case, types, pooling="last", unread_id=PAD_ID).token_type_ids.tolist() == expected
    assert (rows, types) == before
    assert not collated(case, None).token_type_ids.any()  # the tokenizer gave none


def read_token(document: list[int], unread: int | None) -> int:
    """The index of a document's last token that is read; its first if none is."""
    read = [index for index, token in enumerate(document) if token != unread]
    return read[-1] if read else 0


@given(cases(), st.sampled_from([("first", None), ("last", None), ("last", PAD_ID)]), st.booleans())
@example(FULL, ("last", None), True)
@example(NO_TOKENS, ("last", PAD_ID), False)
@example(ONLY_PADDING, ("last", PAD_ID), True)
@example(PADDING_WITHIN, ("last", PAD_ID), False)
@example(PADDING_WITHIN, ("last", None), True)
def test_the_head_reads_each_documents_first_token_or_its_last_that_is_not_padding(case, reading, types):
    pooling, unread = reading
    laid_out = documents(case)
    starts = [0, *accumulate(map(len, laid_out))]
    within = [0 if pooling == "first" else read_token(document, unread) for document in laid_out]
    batch = collated(case, pooling=pooling, unread_id=unread, has_token_types=types)
    pooled = batch.pooled.tolist()
    assert pooled[: len(laid_out)] == [start + at for start, at in zip(starts, within, strict=False)]
    assert all(0 <= index < case[1].tokens for index in pooled)


@given(cases(), st.booleans())
@example(FULL, False)
def test_every_tensor_is_contiguous_in_the_planned_shape(case, has_token_types):
    _, plan = case
    batch = collated(case, has_token_types=has_token_types)
    assert batch.shape == (plan.tokens, plan.max_sequences)
    assert (batch.token_type_ids is not None) == has_token_types
    for name, length, dtype in (
        ("input_ids", plan.tokens, torch.int64),
        ("position_ids", plan.tokens, torch.int64),
        *([("token_type_ids", plan.tokens, torch.int64)] if has_token_types else []),
        ("pooled", plan.max_sequences, torch.int64),
        ("cu_seqlens", plan.max_sequences + 1, torch.int32),
    ):
        tensor = getattr(batch, name)
        assert (tensor.shape, tensor.dtype, tensor.device) == ((length,), dtype, CPU), name
        assert tensor.is_contiguous(), name


@given(cases())
def test_warm_up_runs_on_the_same_shapes_full_of_dummies(case):
    _, plan = case
    assume(plan.max_sequences > plan.tokens // plan.max_seqlen + 1)
    batch = collator().dummy(plan)
    assert batch.shape == (plan.tokens, plan.max_sequences)
    assert batch.input_ids.tolist() == [PAD_ID] * plan.tokens
    assert batch.cu_seqlens.diff().max() == min(plan.max_seqlen, plan.tokens)
