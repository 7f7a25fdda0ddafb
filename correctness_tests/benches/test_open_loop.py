"""The load: drawn in advance, not slowed by a slow server, and no request unanswered."""

from __future__ import annotations

import gzip
import json
import threading
import time

import numpy as np
import pytest

import xenc
from perf_tests.device_thread import traced_thread
from perf_tests.open_loop import Arrival, Load, Outcome, Unanswered, play, poisson
from perf_tests.test_load import how_many
from xenc import Overloaded

PAIR = ("a question", "a document")


def at(*dues: float) -> list[Arrival]:
    return [Arrival(due=due, pairs=[PAIR]) for due in dues]


def scores(pairs) -> np.ndarray:
    return np.zeros(len(pairs), np.float32)


def test_arrivals_are_the_same_for_one_seed_and_only_denser_at_a_higher_rate():
    def drawn(seed, rate):
        return poisson(seed, requests_per_s=rate, requests=50, draw=lambda generator: generator.random())

    slow, fast = drawn("a", 1), drawn("a", 4)
    assert slow == drawn("a", 1) != drawn("b", 1)
    np.testing.assert_allclose([each.due for each in fast], [each.due / 4 for each in slow])
    assert [each.pairs for each in fast] == [each.pairs for each in slow]
    assert len(fast) == 50


def test_gaps_are_exponential():
    """Their mean is 1 / rate, and so is their standard deviation."""
    dues = [
        arrival.due for arrival in poisson("gaps", requests_per_s=50, requests=10_000, draw=lambda _: [PAIR])
    ]
    gaps = np.diff(dues)
    assert abs(gaps.mean() * 50 - 1) < 0.05
    assert abs(gaps.std() * 50 - 1) < 0.05


def test_what_a_stall_held_back_counts_from_when_it_was_due():
    """One client, ten requests due at once, 20 ms each: the last one's latency is all of theirs."""

    def stalling(pairs):
        time.sleep(0.02)
        return scores(pairs)

    load = play(at(*[0.0] * 10), stalling, clients=1)
    latencies = sorted(outcome.latency for outcome in load.outcomes)
    assert all(latency >= 0.02 * (number + 1) for number, latency in enumerate(latencies))
    assert load.behind >= 0.2
    assert load.latency(50) > load.latency(1)


def test_a_percentile_is_shown_where_three_requests_are_slower():
    def load(requests: int) -> Load:
        outcomes = [
            Outcome(arrival=at(0)[0], scores=scores([PAIR]), latency=number / requests)
            for number in range(requests)
        ]
        return Load(outcomes=tuple(outcomes), seconds=1.0)

    assert [load(5).latency(50), load(29).latency(90), load(299).latency(99)] == [None] * 3
    assert load(6).latency(50) == pytest.approx(5 / 12)
    assert load(300).latency(99) == pytest.approx(0.99, abs=0.01)
    assert load(300).latency(99) > load(300).latency(50) > load(300).latency(1)


@pytest.mark.parametrize(
    ("requests_per_s", "expected"), [(2, 120), (5, 300), (10, 400), (50, 400), (100, 600)]
)
def test_a_run_has_enough_requests_for_its_p99_unless_that_takes_over_a_minute(requests_per_s, expected):
    assert how_many(requests_per_s, "cpu") == expected


def test_no_request_is_sent_before_it_is_due_and_no_more_at_once_than_there_are_clients():
    under_way, most, early = [], [], []
    started, dues = time.perf_counter(), [number * 0.002 for number in range(40)]

    def watched(pairs):
        early.append(time.perf_counter() - started < dues[len(pairs) - 1])
        under_way.append(pairs)
        most.append(len(under_way))
        time.sleep(0.01)
        under_way.remove(pairs)
        return scores(pairs)

    load = play(
        [Arrival(due=due, pairs=[PAIR] * size) for size, due in enumerate(dues, 1)], watched, clients=3
    )
    assert not any(early)
    assert max(most) <= 3
    assert len(load.answered) == 40


def test_an_error_or_a_missing_answer_fails_the_run():
    def failing(pairs):
        raise LookupError("lost")

    with pytest.raises(Unanswered, match=r"2 of 2 requests were not answered: LookupError\('lost'\)"):
        play(at(0, 0), failing, clients=2)
    first = iter([True, False])

    def silent(pairs):
        return scores(pairs) if next(first) else threading.Event().wait(5)

    with pytest.raises(Unanswered, match="1 of 2"):
        play(at(0, 0), silent, clients=2, patience=0.5)


def test_refusals_are_counted_and_have_no_latency():
    def full(pairs):
        raise Overloaded("full")

    load = play(at(0, 0.001, 0.002), full, clients=2)
    assert (load.refused, load.answered, load.pairs_per_s) == (3, [], 0)
    assert load.latency(50) is None


def test_a_trace_taken_under_load_shows_the_devices_thread(tiny, tmp_path):
    batches = []
    with xenc.CrossEncoder(str(tiny), device="cpu", execution="packed-eager") as model:
        forward = model.pipeline.forward
        model.pipeline.forward = lambda batch: batches.append(batch) or forward(batch)
        with traced_thread(model, tmp_path / "traces" / "load.json.gz"):
            load = play(at(*[0.001 * number for number in range(30)]), model.predict, clients=4)
    assert len(load.answered) == 30
    with gzip.open(tmp_path / "traces" / "load.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    embeddings = [event for event in events if event["name"] == "aten::embedding"]
    assert len({event["tid"] for event in embeddings}) == 1
    assert len(embeddings) >= len(batches) > 0
