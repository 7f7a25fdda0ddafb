"""Plans within what the memory holds: each pair once, in warm shapes, of no size that failed."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from correctness_tests.strategies import bucket_specs, token_counts
from xenc.batching.limit import Limit
from xenc.batching.packed_plan import Budgets, plan_packed, token_budgets, warmup_plans
from xenc.batching.padded_plan import bucket_lengths, plan_batches, rows_within
from xenc.batching.prefix_plan import plan_shared, prefix_budgets

MAX_LENGTH = 64
counts_of_a_request = token_counts(MAX_LENGTH)
sizes_that_failed = st.lists(st.integers(1, 600), max_size=5)


def after(failed: list[int]) -> Limit:
    limit = Limit()
    for tokens in failed:
        limit.halve(tokens)
    return limit


def test_the_most_is_half_of_what_failed_until_half_fails_too():
    limit = Limit()
    for tokens, most, unfit in [(1000, 500, 1000), (700, 500, 700), (500, 250, 500), (900, 250, 500)]:
        limit.halve(tokens)
        assert (limit.most, limit.unfit) == (most, unfit)


@given(counts_of_a_request, sizes_that_failed, st.sampled_from([512, (64, 512), (64, 96, 128, 300)]))
@example([60, 4], [512, 64], 512)
@example([64] * 30, [512], 512)
@example([64, 3, 64, 3] * 5, [512, 256, 128, 64], 512)
@example([64, 3, 64, 3] * 5, [512, 256, 128, 64], (64, 512))
def test_packed_batches_of_several_pairs_are_smaller_than_what_failed(counts, failed, spec):
    every = token_budgets(spec, MAX_LENGTH, usual=512)
    failed = [size for size in failed if size > every.sizes[0]]  # no size is smaller than the first
    budgets = every.within(after(failed))
    counts = [max(1, count) for count in counts]
    plan = plan_packed(counts, budgets)
    assert sorted(row for batch in plan.batches for row in batch.rows) == list(range(len(counts)))
    warm = {(each.tokens, each.max_sequences) for each in warmup_plans(every)}
    for batch in plan.batches:
        assert (batch.tokens, batch.max_sequences) in warm
        needed = every.at_least(max(counts[row] for row in batch.rows))
        if failed and len(batch.rows) > 1:
            assert batch.tokens < min(failed)
            assert batch.tokens <= max(every.sizes[0], needed, after(failed).most)
        assert budgets.allow(batch.tokens, [counts[row] for row in batch.rows])


@given(counts_of_a_request, sizes_that_failed, bucket_specs(MAX_LENGTH), st.integers(1, 9), st.booleans())
@example([64, 1, 1, 1, 1, 1], [200], 16, 4, False)
def test_rows_are_halved_until_their_tokens_fit_and_each_bucket_has_one_number_of_rows(
    counts, failed, spec, batch_size, sort
):
    limit, lengths = after(failed), bucket_lengths(spec, MAX_LENGTH)
    halves = {batch_size >> times for times in range(10)}
    for buckets in (lengths, None):
        plan = plan_batches(counts, batch_size=batch_size, sort=sort, buckets=buckets, limit=limit)
        assert sorted(row for batch in plan.batches for row in batch.rows) == list(range(len(counts)))
        for batch in plan.batches:
            rows, length = batch.shape
            assert len(batch.rows) <= rows
            assert length >= max(1, *(counts[row] for row in batch.rows))
            assert not failed or rows == 1 or rows * length <= limit.most
            most = rows_within(limit, batch_size, length)
            assert most in halves
            assert rows <= most if buckets is None else rows == most
    assert plan_batches(
        counts, batch_size=batch_size, sort=sort, buckets=None, limit=Limit()
    ) == plan_batches(counts, batch_size=batch_size, sort=sort, buckets=None)


@pytest.mark.parametrize("failed", [32, 64, 128])
def test_a_prefix_is_not_shared_from_the_size_on_in_which_it_could_not_be_read(failed):
    read_in = prefix_budgets(128)
    limited = Budgets(read_in.sizes, read_in.usual, 128, read_in.tokens_per_sequence, unfit=failed)
    budgets = Budgets((32, 64, 128), 128, 128)
    for common in (20, 32, 33, 60, 64, 65, 100):
        rows = [[7] * common + [8 + row] * 20 for row in range(12)]
        assert plan_shared(rows, budgets, read_in).shared_tokens > 0
        plan = plan_shared(rows, budgets, limited)
        assert (plan.shared_tokens > 0) == (read_in.at_least(common) < failed)
        assert plan.shared_tokens == sum(batch.shared_tokens for batch in plan.batches) * 11 // 12
