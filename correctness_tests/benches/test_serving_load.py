"""What the load of the rerank server counts, and the locked server that it is compared with."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import xenc
from correctness_tests.examples.conftest import served, until_ready
from correctness_tests.scoring import logits
from correctness_tests.waiting import SOON, held, until
from perf_tests.open_loop import Arrival, Load, Outcome
from perf_tests.rerank_servers import Locked, over_http
from perf_tests.serving_load import HEADER, InParts, in_time, row_of
from xenc import Overloaded

PAIRS = [("a", "b " * words) for words in range(1, 25)]


def load(latencies: list[float], refused: int = 0) -> Load:
    arrival = Arrival(due=0.0, pairs=[("a", "b")] * 2)
    answered = [Outcome(arrival=arrival, scores=np.zeros(2), latency=latency) for latency in latencies]
    none = [Outcome(arrival=arrival, scores=None, latency=0.0)] * refused
    return Load(outcomes=(*answered, *none), seconds=2.0)


def test_goodput_counts_what_was_answered_in_time_and_nothing_that_was_refused():
    some = load([0.5, 1.0, 1.5], refused=5)
    assert in_time(some, 1.0) == 2
    row = dict(zip(HEADER[1:], row_of("one", some, 1.0), strict=True))
    assert (row["goodput/s"], row["in time"], row["pairs/s"]) == ("1.0", "25.0%", "3")
    assert (row["refused"], row["requests"]) == ("5", "8")


def test_a_percentile_is_left_out_where_too_few_requests_are_slower():
    few, many = (row_of("one", load([0.1] * requests), 1.0) for requests in (100, 300))
    assert few[2:4] == ["100", "-"]
    assert many[2:4] == ["100", "100"]


def test_over_http_logits_are_in_the_order_of_the_pairs(tiny, plain):
    with (
        xenc.CrossEncoder(str(tiny), device="cpu", execution="packed-eager") as model,
        served(model) as address,
    ):
        until_ready(address)
        expected = logits(plain, PAIRS)
        np.testing.assert_allclose(InParts(over_http(address.port)).logits(PAIRS), expected, atol=1e-4)


def test_over_http_a_refusal_is_overloaded(tiny):
    model = xenc.CrossEncoder(str(tiny), device="cpu", execution="packed-eager", max_waiting_pairs=3)
    with model, served(model) as address:
        until_ready(address)
        with held(model):
            model.submit(PAIRS[:2])
            with pytest.raises(Overloaded, match="2 pairs wait already"):
                over_http(address.port)(PAIRS[:2])


def test_the_locked_server_answers_one_caller_at_a_time_and_refuses_at_its_limit(plain):
    inside, most, go = [], [], threading.Event()

    def predict(pairs, *, activation_fn):
        inside.append(1)
        most.append(len(inside))
        assert go.wait(SOON)
        inside.pop()
        return plain.predict(list(pairs), activation_fn=activation_fn)

    locked = Locked(predict, limit=9)
    futures = [locked.submit(PAIRS[:3], activation_fn=None) for _ in range(3)]
    with pytest.raises(Overloaded):
        locked.submit(PAIRS[:1], activation_fn=None)
    assert until(lambda: len(most) == 1)
    go.set()
    for future in futures:
        np.testing.assert_allclose(future.result(SOON), plain.predict(PAIRS[:3]), atol=1e-5)
    assert most == [1, 1, 1]
    locked.submit(PAIRS[:9], activation_fn=None).result(SOON)
    locked.close()


def test_the_server_runs_on_a_locked_model(plain):
    def predict(pairs, *, activation_fn):
        return plain.predict(list(pairs), activation_fn=activation_fn)

    with served(Locked(predict)) as address:
        until_ready(address)
        np.testing.assert_allclose(over_http(address.port)(PAIRS), logits(plain, PAIRS), atol=1e-4)
