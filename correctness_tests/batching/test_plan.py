"""Laws of padded and bucketed plans: full batches in order, few shapes, all of them warmed up."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from correctness_tests import strategies
from xenc import ExecutionError
from xenc.batching.padded_plan import bucket_lengths, plan_batches, warmup_shapes

MAX_LENGTH = 64
BUCKETS = (16, 32, 48, 64)
counts = strategies.token_counts(MAX_LENGTH, edges=BUCKETS)
batch_sizes = st.integers(1, 9)


@given(counts, batch_sizes, st.booleans(), st.sampled_from([None, BUCKETS]))
@example([], 4, True, BUCKETS)
@example([0], 1, True, None)
@example([7, 7, 7, 7, 7], 2, True, BUCKETS)
@example([3, 3, 9, 3], 2, True, None)
def test_pairs_are_cut_into_full_batches_longest_first_if_sorted(counts, batch_size, sort, buckets):
    plan = plan_batches(counts, batch_size=batch_size, sort=sort, buckets=buckets)
    order = sorted(range(len(counts)), key=lambda row: (-counts[row] if sort else 0, row))
    starts = range(0, len(counts), batch_size)
    assert [batch.rows for batch in plan.batches] == [tuple(order[at : at + batch_size]) for at in starts]
    assert plan.real_tokens == sum(counts)


@given(counts, batch_sizes, st.booleans(), st.sampled_from([None, BUCKETS]))
@example([15], 1, True, BUCKETS)
@example([16], 1, True, BUCKETS)
@example([17], 1, True, BUCKETS)
@example([0], 3, False, BUCKETS)
@example([0], 3, False, None)
@example([5, 5, 5], 2, True, BUCKETS)
def test_a_batch_has_the_first_bucket_that_holds_its_longest_pair_and_dummy_rows(
    counts, batch_size, sort, buckets
):
    for batch in plan_batches(counts, batch_size=batch_size, sort=sort, buckets=buckets).batches:
        longest = max(
            1, *(counts[row] for row in batch.rows)
        )  # a model needs one token, even for a pair of none
        if buckets is None:
            assert (batch.batch_size, batch.length) == (len(batch.rows), longest)
        else:
            first = next(bucket for bucket in buckets if bucket >= longest)
            assert (batch.batch_size, batch.length) == (batch_size, first)


@given(counts, batch_sizes, st.booleans(), st.sampled_from([None, BUCKETS]))
@example([], 4, True, BUCKETS)
@example([16, 16], 2, True, BUCKETS)
def test_waste_is_the_fraction_of_padding(counts, batch_size, sort, buckets):
    plan = plan_batches(counts, batch_size=batch_size, sort=sort, buckets=buckets)
    padded = sum(batch.length * batch.batch_size for batch in plan.batches) - sum(counts)
    assert plan.all_tokens == sum(counts) + padded
    assert plan.waste == pytest.approx(padded / plan.all_tokens if plan.all_tokens else 0)
    assert 0 <= plan.waste <= 1


@given(strategies.bucket_specs(MAX_LENGTH))
@example(1)
@example(MAX_LENGTH + 1)
@example((8, 100, 200))
def test_buckets_ascend_and_end_at_max_length(spec):
    lengths = bucket_lengths(spec, MAX_LENGTH)
    assert list(lengths) == sorted(set(lengths))
    assert lengths[-1] == MAX_LENGTH


@pytest.mark.parametrize(
    ("spec", "max_length", "lengths"),
    [
        (16, 64, (16, 32, 48, 64)),
        (16, 50, (16, 32, 48, 50)),
        (16, 16, (16,)),
        (16, 15, (15,)),
        ("powers-of-two", 64, (16, 32, 64)),
        ("powers-of-two", 65, (16, 32, 64, 65)),
        ("powers-of-two", 8, (8,)),
        ("max-length", 50, (50,)),
        ((8, 64), 64, (8, 64)),
        ((8, 64), 40, (8, 40)),
        ((8, 40, 64), 40, (8, 40)),
    ],
)
def test_buckets_follow_max_length(spec, max_length, lengths):
    assert bucket_lengths(spec, max_length) == lengths


def test_explicit_buckets_below_max_length_are_refused():
    with pytest.raises(ExecutionError, match=r"\(8, 63\).*max_length=64.*Add 64, or lower .* to 63"):
        bucket_lengths((8, 63), MAX_LENGTH)


@given(strategies.bucket_specs(MAX_LENGTH), counts, batch_sizes, st.booleans())
@example(16, [0, 1, 16, 17, 64], 1, True)
@example((8, 100), [8, 9, 64], 2, False)
def test_warm_up_covers_every_shape_a_plan_can_have(spec, counts, batch_size, sort):
    lengths = bucket_lengths(spec, MAX_LENGTH)
    plan = plan_batches(counts, batch_size=batch_size, sort=sort, buckets=lengths)
    warm = warmup_shapes(lengths, batch_size)
    assert {(batch.batch_size, batch.length) for batch in plan.batches} <= set(warm)
    assert len(set(warm)) == len(warm)


@given(strategies.bucket_specs(MAX_LENGTH), st.integers(1, 2 * MAX_LENGTH))
@example(16, 64)
@example(16, 16)
@example(64, 64)
def test_warm_up_starts_with_two_sizes_that_differ_if_it_can(spec, batch_size):
    shapes = warmup_shapes(bucket_lengths(spec, MAX_LENGTH), batch_size)
    rows, length = shapes[0]
    assert rows != length or shapes == ((rows, length),)
    longest_first = [shape for shape in shapes if shape[0] != shape[1]]
    assert longest_first == sorted(longest_first, reverse=True)
