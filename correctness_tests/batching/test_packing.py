"""Laws of packing: every pair once, budgets held and filled, and a slot for every document."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from correctness_tests import strategies
from perf_tests import workloads
from xenc import ExecutionError
from xenc.batching.packed_plan import (
    Budgets,
    _fullest,
    _fullest_in_order,
    pack,
    plan_packed,
    token_budgets,
    warmup_plans,
)
from xenc.batching.plan import PackedPlan
from xenc.layouts.packed import TOKENS_PER_SEQUENCE
from xenc.serving.queue import MOST_WAITING

USUAL_BUDGETS = (2048, 16_384)


def specs(max_seqlen: int) -> st.SearchStrategy[int | tuple[int, ...] | None]:
    """What `Execution.token_budgets` accepts, reaching max_seqlen."""
    sizes = st.sets(st.integers(1, 300), max_size=4)
    return st.none() | st.integers(1, 300) | sizes.map(lambda sizes: tuple(sorted({*sizes, max_seqlen})))


SLOTS = ((8,), (8, 64, 128, 256), (8, 11, 40))
"""Tokens per slot: a CPU's, a GPU's, and others."""


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[int], Budgets]:
    """Counts from 1 to max_seqlen, and the budgets of some execution."""
    max_seqlen = draw(st.integers(1, 80))
    counts = [max(1, count) for count in draw(strategies.token_counts(max_seqlen, edges=(1, 3, 16)))]
    spec = draw(specs(max_seqlen))
    single = draw(st.booleans()) and (not isinstance(spec, tuple) or len(spec) == 1)
    return counts, token_budgets(
        spec, max_seqlen, usual=draw(st.integers(1, 300)), single=single,
        tokens_per_sequence=draw(st.sampled_from(SLOTS)),
    )  # fmt: skip


def batches(counts: list[int], budgets: Budgets) -> list[PackedPlan]:
    return list(plan_packed(counts, budgets).batches)


@given(requests())
@example(([], Budgets((8,), 8, 8)))
@example(([8], Budgets((8,), 8, 8)))
@example(([1] * 40, Budgets((32, 64), 64, 64)))
@example(([1, 64, 1], Budgets((16, 64), 16, 64)))
@example(([1] * 40, Budgets((31, 33, 47), 47, 1)))
def test_each_pair_is_in_one_batch_of_an_allowed_size_that_holds_it_longest_first(case):
    counts, budgets = case
    plan = plan_packed(counts, budgets)
    assert sorted(row for batch in plan.batches for row in batch.rows) == list(range(len(counts)))
    assert plan.real_tokens == sum(counts)
    for batch in plan.batches:
        assert sum(counts[row] for row in batch.rows) <= batch.tokens
        assert batch.tokens in budgets.sizes
        assert list(batch.rows) == sorted(batch.rows, key=lambda row: (-counts[row], row))


def documents(batch: PackedPlan, counts: list[int], budgets: Budgets) -> int:
    """How many stand in a batch: its pairs, and dummies in the rest."""
    left = batch.tokens - sum(counts[row] for row in batch.rows)
    return len(batch.rows) + -(-left // budgets.max_seqlen)


def with_slots(case: tuple[list[int], Budgets]) -> tuple[list[int], Budgets]:
    counts, budgets = case
    return counts, replace(budgets, tokens_per_sequence=SLOTS[1])


@given(requests())
@example(([1] * 40, Budgets((32, 64), 64, 64)))
@example(([1] * 4, Budgets((33, 40), 40, 3)))
@example(with_slots(([64] * 31, Budgets((2048,), 2048, 64))))
@example(with_slots(([49] * 41, Budgets((2048,), 2048, 512))))
def test_a_batch_has_the_fewest_slots_allowed_that_hold_its_pairs_and_dummies(case):
    counts, budgets = case
    for batch in batches(counts, budgets):
        allowed, needed = budgets.max_sequences(batch.tokens), documents(batch, counts, budgets)
        assert batch.max_sequences == min(slots for slots in allowed if slots >= needed)
        assert all(slots % 2 == 0 for slots in allowed)


@given(requests(), st.data())
@example(with_slots(([49] * 41, Budgets((2048,), 2048, 49))), None)
def test_a_batch_that_loses_some_of_its_pairs_has_slots_enough_for_dummies_in_their_place(case, data):
    counts, budgets = case
    for batch in batches(counts, budgets):
        rows = batch.rows[:1] if data is None else data.draw(st.sets(st.sampled_from(batch.rows)))
        assert documents(replace(batch, rows=tuple(rows)), counts, budgets) <= batch.max_sequences


def test_on_a_gpu_long_documents_leave_few_slots_empty(minilm):
    counts = token_counts(minilm, workloads.seed(pairs=256, batch_size=64).round(0))
    budgets = token_budgets(None, 512, usual=16_384, tokens_per_sequence=TOKENS_PER_SEQUENCE["cuda"])
    assert budgets.max_sequences(16_384) == (98, 162, 290, 2082)
    assert {batch.max_sequences for batch in batches(counts, budgets) if batch.tokens == 16_384} == {98}


@given(requests())
def test_warm_up_covers_every_shape_a_plan_can_have_once(case):
    counts, budgets = case
    warm = warmup_plans(budgets)
    assert len(set(warm)) == len(warm)
    assert {replace(plan, rows=()) for plan in batches(counts, budgets)} <= set(warm)
    assert warm[0].tokens != budgets.max_seqlen or {plan.tokens for plan in warm} == {budgets.max_seqlen}


def fullest(counts: list[int], room: int) -> list[int]:
    """By trying all subsets; the least list of indices of those whose sum is greatest."""
    subsets = [rows for size in range(len(counts) + 1) for rows in combinations(range(len(counts)), size)]
    fitting = [rows for rows in subsets if sum(counts[row] for row in rows) <= room]
    return list(min(fitting, key=lambda rows: (-sum(counts[row] for row in rows), rows)))


few_counts = st.lists(st.integers(1, 30), max_size=8)


@given(few_counts, st.integers(0, 90), st.integers(0, 90))
@example([5, 3, 2], 5, 90)
@example([4, 4, 2, 2, 1], 8, 90)
@example([7], 6, 90)
@example([7], 7, 90)
@example([3, 5, 4, 2], 9, 4)
@example([3, 7, 2], 9, 1)
def test_no_other_choice_is_fuller_and_none_as_full_is_earlier_wherever_the_search_begins(
    counts, room, searched
):
    assert _fullest_in_order(counts, room, searched) == fullest(counts, room)


@given(few_counts, st.integers(0, 90), st.integers(0, 8))
@example([1, 1, 1], 9, 2)
def test_where_slots_are_too_few_for_the_earliest_the_longest_go_first(counts, room, limit):
    chosen, earliest = _fullest(counts, room, limit), fullest(counts, room)
    if len(earliest) <= limit:
        assert chosen == earliest
    else:
        order = sorted(range(len(counts)), key=lambda row: -counts[row])
        longest = fullest([counts[row] for row in order], room)[:limit]
        assert chosen == sorted(order[place] for place in longest)


def test_tiny_pairs_that_came_first_do_not_leave_the_long_ones_to_themselves():
    plan = plan_packed([8] * 400 + [300] * 20, token_budgets(None, 512, usual=2048))
    assert plan.waste < 0.1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(30, 90))
@example([1, 30, 30], 60)
@example([30, 1, 1], 30)
def test_the_pair_that_waited_longest_is_in_and_the_others_fill_its_batch_best(counts, usual):
    budgets = Budgets((usual,), usual, 30)
    assume(len(counts) <= budgets.most_documents(usual))
    others = [1 + row for row in fullest(counts[1:], usual - counts[0])]
    assert sorted(pack(counts, budgets).rows) == [0, *others]


@given(requests())
@example(([16, 16], Budgets((32, 33), 33, 16)))
@example(([1] * 5, Budgets((32, 64, 96), 96, 64)))
def test_a_request_that_fits_one_batch_takes_the_smallest_budget_that_holds_it(case):
    counts, budgets = case
    allowed = [size for size in budgets.sizes if sum(counts) <= size <= budgets.usual]
    holding = [size for size in allowed if len(counts) <= budgets.most_documents(size)]
    assume(counts and holding)
    assert [batch.tokens for batch in batches(counts, budgets)] == [holding[0]]


@pytest.mark.parametrize(("pairs", "most"), [(1024, 0.005), (100, 0.05)])
def test_little_is_wasted_on_prose(minilm, pairs, most):
    counts = token_counts(minilm, workloads.seed(pairs=pairs, batch_size=64).round(0))
    for usual in USUAL_BUDGETS:
        assert plan_packed(counts, token_budgets(None, 512, usual=usual)).waste <= most


@pytest.mark.parametrize(
    ("usual", "max_seqlen", "enough"),
    [(2048, 512, 8192), (16_384, 512, 22_528), (16_384, 8192, 65_536), (64, 512, 256)],
)
def test_a_batch_is_chosen_from_its_budget_and_a_dozen_long_pairs_or_three_budgets(usual, max_seqlen, enough):
    assert token_budgets(None, max_seqlen, usual=usual).enough == enough


@given(requests())
@example(([], token_budgets(32, 512, usual=2048)))
def test_more_than_a_budget_waits_before_a_batch_is_chosen_and_less_than_makes_readers_pause(case):
    budgets = case[1]
    assert budgets.usual < budgets.enough < MOST_WAITING * budgets.usual


def test_a_rerank_request_is_one_batch_on_a_gpu(minilm):
    counts = token_counts(minilm, workloads.short_query(batch_size=64).round(0))
    plan = plan_packed(counts, token_budgets(None, 512, usual=16_384))
    assert len(plan.batches) == 1
    assert plan.waste < 0.15


def token_counts(checkpoint, pairs: list[tuple[str, str]]) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return [len(ids) for ids in tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True)["input_ids"]]


@pytest.mark.parametrize("usual", USUAL_BUDGETS)
def test_tiny_documents_close_a_batch_by_its_slots(usual):
    budgets = token_budgets(None, 512, usual=usual)
    planned = batches([3] * 3000, budgets)
    assert {len(batch.rows) for batch in planned[:-1]} == {min(1024, budgets.most_documents(usual))}


@pytest.mark.parametrize("spec", [(63,), (8, 63)])
def test_budgets_that_do_not_hold_the_longest_pair_are_refused(spec):
    with pytest.raises(ExecutionError, match=r"max_length=64 .*at least 64, or lower max_length to 63"):
        token_budgets(spec, 64, usual=2048)


@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 600), st.booleans())
@example(1, 64, 2048, False)
@example(64, 64, 2048, True)
def test_a_single_number_is_the_usual_budget_and_the_largest_holds_any_pair(spec, max_seqlen, usual, single):
    for given_spec, wanted in ((spec, spec), (None, usual)):
        budgets = token_budgets(given_spec, max_seqlen, usual=usual, single=single)
        assert list(budgets.sizes) == sorted(set(budgets.sizes))
        assert budgets.sizes[-1] == max(wanted, max_seqlen)
        assert budgets.usual == (max(wanted, max_seqlen) if single else wanted)
        assert len(budgets.sizes) == 1 or not single
