"""The packed queue packs as planned, first come first served, loses no pair and runs no dropped one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain, repeat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from perf_tests import workloads
from xenc.batching.packed_plan import Budgets, plan_packed, token_budgets, warmup_plans
from xenc.serving.queue import MOST_WAITING, NextBatch, PackedQueue
from xenc.serving.request import Request
from xenc.text.tokens import PairReader, TokenizedPairs

SMALL = Budgets((16, 32, 64), 64, 32, tokens_per_sequence=(8, 16, 32))
WARM = {(plan.tokens, plan.max_sequences) for plan in warmup_plans(SMALL)}
counts_of_a_request = st.lists(st.integers(0, 32), min_size=1, max_size=40)


@dataclass
class Client:
    """A request, and a reader that adds its pairs in order, some at a time."""

    counts: list[int]
    name: int = 0

    def __post_init__(self) -> None:
        pairs = [("", "")] * len(self.counts)
        self.request = Request(pairs, batch_size=1, tokenize=unused, answer=unused)

    @property
    def read(self) -> int:
        return len(self.counts) - self.request.unread

    def add(self, stream: PackedQueue, pairs: int) -> None:
        """Each token says whose it is, and each type in which row."""
        rows = range(self.read, min(self.read + pairs, len(self.counts)))
        ids = [[self.name] * self.counts[row] for row in rows]
        types = [[row] * self.counts[row] for row in rows]
        stream.add(self.request, TokenizedPairs(input_ids=ids, token_type_ids=types, truncated_pairs=0))


def unused(_: object) -> TokenizedPairs:
    raise AssertionError


def shape(batch: NextBatch) -> tuple[tuple[int, ...], int, int]:
    return tuple(document.row for document in batch.documents), batch.plan.tokens, batch.plan.max_sequences


def planned(counts: list[int], budgets: Budgets) -> list[tuple[tuple[int, ...], int, int]]:
    plan = plan_packed([max(1, count) for count in counts], budgets)
    return [(batch.rows, batch.tokens, batch.max_sequences) for batch in plan.batches]


def streamed(counts: list[int], budgets: Budgets, steps: list[int]) -> list[tuple[tuple[int, ...], int, int]]:
    """Batches of a request that is alone; a step adds so many pairs, and 0 takes a batch."""
    stream, client = PackedQueue(budgets), Client(counts)
    taken = []
    for step in [*steps, len(counts)]:
        if step and client.request.unread:
            client.add(stream, step)
        else:
            taken.append(stream.next_batch())
    while batch := stream.next_batch():
        taken.append(batch)
    return [shape(batch) for batch in taken if batch]


@given(counts_of_a_request, st.lists(st.integers(0, 9), max_size=60))
@example([32] * 12, [4, 0, 1, 0, 0, 3, 0])
@example([0] * 7, [1, 0, 1, 0])
@example([20, 20, 20, 12] * 5, [1, 0] * 20)
@example([31] * 9 + [2], [])
def test_a_request_that_is_alone_is_packed_as_planned_whatever_was_read_when(counts, steps):
    assert streamed(counts, SMALL, steps) == planned(counts, SMALL)


@pytest.mark.parametrize("usual", [2048, 16_384])
def test_more_tiny_documents_than_a_batch_is_chosen_from_are_packed_as_planned(usual):
    budgets = token_budgets(None, 512, usual=usual)
    assert streamed([3] * 3000, budgets, [64, 0] * 50) == planned([3] * 3000, budgets)


def test_requests_share_a_batch():
    stream, clients = PackedQueue(SMALL), [Client([9, 7], 0), Client([8], 1)]
    for client in clients:
        client.add(stream, 2)
    batch = stream.next_batch()
    assert batch.tokens == [([0] * 9, [0] * 9), ([1] * 8, [0] * 8), ([0] * 7, [1] * 7)]
    assert batch.plan.tokens == 32
    assert stream.next_batch() is None


def test_a_batch_waits_for_the_end_of_the_oldest_request_or_for_enough_to_choose_from():
    stream, slow, quick = PackedQueue(SMALL), Client([16] * 30, 0), Client([16], 1)
    slow.add(stream, 1)
    quick.add(stream, 1)
    assert stream.next_batch() is None
    slow.add(stream, 13)
    assert stream.next_batch() is None
    slow.add(stream, 1)
    assert stream.next_batch().plan.tokens == 64


def test_on_a_gpu_the_first_texts_that_are_read_make_a_batch(minilm):
    budgets = token_budgets(None, 512, usual=16_384)
    pairs = workloads.seed(pairs=1024, batch_size=64).round(0)
    tokens = PairReader(AutoTokenizer.from_pretrained(minilm), 512).read(pairs[: PackedQueue.chunk], {})
    stream, client = PackedQueue(budgets), Client([*tokens.counts, *[1] * 960])
    client.add(stream, PackedQueue.chunk)
    assert stream.next_batch().plan.tokens == 16_384


@given(st.lists(counts_of_a_request, min_size=1, max_size=4), st.data())
def test_the_oldest_pair_is_in_the_next_batch_shapes_are_warm_and_dropped_pairs_do_not_run(many, data):
    stream, clients = PackedQueue(SMALL), [Client(counts, name) for name, counts in enumerate(many)]
    waiting: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(0, 40))):
        client = data.draw(st.sampled_from(clients))
        match data.draw(st.sampled_from(["add", "add", "take", "take", "drop"])):
            case "add" if not client.request.dropped:
                first = client.read
                client.add(stream, data.draw(st.integers(1, 12)))
                waiting += [(client.name, row) for row in range(first, client.read)]
            case "take":
                check_next(stream, clients, waiting)
            case "drop" if data.draw(st.booleans()):
                client.request.future.cancel()
    for client in clients:
        if client.request.unread:
            client.request.future.cancel()
    while check_next(stream, clients, waiting):
        pass
    assert waiting == []


def check_next(stream: PackedQueue, clients: list[Client], waiting: list[tuple[int, int]]) -> bool:
    """Take a batch and compare it with the list of all that waits, oldest first."""
    waiting[:] = [(name, row) for name, row in waiting if not clients[name].request.dropped]
    batch = stream.next_batch()
    if batch is None:
        tokens = sum(max(1, clients[name].counts[row]) for name, row in waiting)
        assert not waiting or (clients[waiting[0][0]].request.unread and tokens < SMALL.enough)
        return False
    assert (batch.plan.tokens, batch.plan.max_sequences) in WARM
    taken = [(whose(clients, document.request).name, document.row) for document in batch.documents]
    assert waiting[0] in taken
    for entry in taken:
        waiting.remove(entry)
    return True


@given(st.lists(counts_of_a_request, min_size=1, max_size=4))
@example([[3, 20, 1, 32], [32] * 9])
def test_the_pairs_of_a_batch_that_did_not_fit_are_first_in_line_the_oldest_before_the_others(many):
    stream, clients = PackedQueue(SMALL), [Client(counts, name) for name, counts in enumerate(many)]
    for client in clients:
        client.add(stream, len(client.counts))
    before, tokens = list(stream._waiting), stream._tokens
    batch = stream.next_batch()
    others = list(stream._waiting)
    stream.put_back(batch)
    taken = [document for document in before if document not in others]
    assert list(stream._waiting) == taken + others
    assert stream._tokens == tokens
    assert len(taken) == len(batch.documents)
    stream._limit.halve(64)
    half = stream.next_batch()
    assert half.plan.tokens <= 32
    assert taken[0] in half.documents


def whose(clients: list[Client], request: Request) -> Client:
    return next(client for client in clients if client.request is request)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=3), st.lists(st.integers(0, 6), max_size=60))
@example([600, 600], [1] * 60)
def test_a_paused_request_is_resumed_once_there_is_room(sizes, steps):
    """A step lets so many readers read on before the next batch is taken."""
    stream, clients = PackedQueue(SMALL), [Client([16] * size, name) for name, size in enumerate(sizes)]
    readers, scored = deque(clients), 0
    for step in chain(steps, repeat(2)):
        for _ in range(min(step, len(readers))):
            client = readers.popleft()
            if client.request.unread and not stream.pause(client.request):
                client.add(stream, stream.chunk)
                readers.append(client)
        batch = stream.next_batch()
        scored += len(batch.documents) if batch else 0
        readers += [whose(clients, request) for request in stream.resume()]
        if not batch and not readers:
            break
    assert scored == sum(sizes)


def test_tokenizing_pauses_beyond_the_bound_and_resumes_below():
    stream, client = PackedQueue(SMALL), Client([32] * 200)
    client.add(stream, 2 * MOST_WAITING)
    assert not stream.pause(client.request)
    client.add(stream, 1)
    assert stream.pause(client.request)
    assert stream.resume() == ()
    stream.next_batch()
    assert stream.resume() == [client.request]
    assert stream.resume() == []


def test_dropped_pairs_do_not_keep_the_queue_full():
    stream, dropped, other = PackedQueue(SMALL), Client([32] * 200), Client([1])
    dropped.add(stream, 200)
    assert stream.pause(other.request)
    dropped.request.future.cancel()
    assert stream.next_batch() is None
    assert stream.resume() == [other.request]
    assert not stream.pause(other.request)
