"""Calls from many threads share batches, and each caller gets the scores and errors that are its own."""

from __future__ import annotations

import os
import random
import signal
import threading
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
import torch

from correctness_tests import oracle
from correctness_tests.scoring import assert_close, nothing_compiles, on_cpu
from correctness_tests.serving.conftest import FINE, POISON, refuse, submit
from correctness_tests.waiting import SOON, held, read_fully
from perf_tests import workloads
from xenc import Execution, NonFiniteScoreError
from xenc.serving.request import Request

THREADS = 16


def some_pairs(count: int) -> list[tuple[str, str]]:
    rounds = workloads.seed(pairs=count, batch_size=4).round(3)
    return [(query[:50], document[: 4 * index]) for index, (query, document) in enumerate(rounds)]


@pytest.fixture(scope="module")
def expected(tiny) -> dict[tuple[str, str], float]:
    """The oracle's logit of every pair that these laws draw from."""
    pairs = list(dict.fromkeys([*some_pairs(60), FINE]))
    return dict(zip(pairs, oracle.logits(tiny, pairs, max_length=64).tolist(), strict=True))


def assert_right(scores, pairs, expected) -> None:
    assert_close(scores, [expected[pair] for pair in pairs])


@pytest.mark.parametrize(("layout", "requests"), [("packed", 200), ("bucketed", 25)])
def test_every_score_under_many_threads_is_the_oracles_and_nothing_compiles(
    tiny, expected, monkeypatch, layout, requests
):
    model = on_cpu(tiny, Execution(layout=layout, strict=True))
    model.warmup(batch_size=4)
    pool, batches = list(expected), []
    run = model.pipeline.forward
    monkeypatch.setattr(model.pipeline, "forward", lambda batch: batches.append(batch.shape) or run(batch))

    def client(seed: int) -> None:
        draw = random.Random(seed)
        for number in range(requests):
            pairs = draw.choices(pool, k=draw.randint(1, 6))
            ask = model.predict if number % 4 else lambda *a, **k: model.submit(*a, **k).result(SOON)
            assert_right(ask(pairs, batch_size=4, activation_fn=torch.nn.Identity()), pairs, expected)

    with nothing_compiles(), ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(client, range(THREADS)))
    if layout == "packed":  # how many are shared depends on how busy the machine is
        assert len(batches) < THREADS * requests
    else:  # each request is planned by itself
        assert len(batches) >= THREADS * requests
    model.close()


def test_requests_that_wait_together_share_one_batch(model, expected, monkeypatch):
    requests = [[pair] for pair in list(expected)[:12]]
    batches, run = [], model.pipeline._run_batch
    monkeypatch.setattr(model.pipeline, "_run_batch", lambda batch: batches.append(batch) or run(batch))
    with held(model):
        waiting = [submit(model, pairs) for pairs in requests]
        read_fully(model, 12)
        assert not any(future.done() for future in waiting)  # submit does not wait
    for pairs, future in zip(requests, waiting, strict=True):
        assert_right(future.result(SOON), pairs, expected)
    assert [len(batch.documents) for batch in batches] == [12]


def test_an_error_reaches_only_its_own_caller(model, expected):
    model.tokenizer.add_tokens(["beyondthevocabulary"])
    model._pipeline = None
    fine = [FINE] * 3
    with held(model):
        well = submit(model, fine)
        bad = {
            NonFiniteScoreError: submit(model, [FINE, POISON]),
            LookupError: submit(model, [FINE], activation_fn=refuse),
            IndexError: submit(model, [FINE, ("", "beyondthevocabulary"), FINE]),
        }
        also_well = submit(model, fine)
        read_fully(model, 12)
    for future in (well, also_well):
        assert_right(future.result(SOON), fine, expected)
    for error, future in bad.items():
        with pytest.raises(error):
            future.result(SOON)
    assert_right(submit(model, fine).result(SOON), fine, expected)


def test_a_cancelled_request_runs_nothing_more_and_the_rest_goes_on(model, expected, monkeypatch):
    batches, run = [], model.pipeline._run_batch
    monkeypatch.setattr(model.pipeline, "_run_batch", lambda batch: batches.append(batch) or run(batch))
    with held(model):
        dropped, kept = submit(model, [FINE] * 100), submit(model, [FINE])
        read_fully(model, 101)
        assert dropped.cancel()
        assert futures.wait([dropped], timeout=SOON).done, "who waits for a cancelled Future waits for ever"
    assert_right(kept.result(SOON), [FINE], expected)
    assert [len(batch.documents) for batch in batches] == [1]
    assert model.pipeline.queue._tokens == 0


def test_an_interrupt_drops_the_callers_pairs_and_the_model_still_works(model, expected):
    with held(model):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            model.predict([FINE] * 500)
    assert_right(submit(model, [FINE]).result(SOON), [FINE], expected)
    assert model.pipeline.queue._tokens == 0


def test_a_request_that_fails_while_tokenized_does_not_block_others(model, expected, monkeypatch):
    go, tokenize = threading.Event(), model.pipeline.reader.read

    def stumbling(pairs, seen):
        if ("", "stumble") in pairs:
            go.wait(SOON)
            raise LookupError
        return tokenize(pairs, seen)

    monkeypatch.setattr(model.pipeline.reader, "read", stumbling)
    failing = submit(model, [FINE] * 64 + [("", "stumble")])
    read_fully(model, 64)
    behind = submit(model, [FINE])
    read_fully(model, 65)
    model._worker.on_device(lambda: None).result(SOON)
    go.set()
    with pytest.raises(LookupError):
        failing.result(SOON)
    assert_right(behind.result(SOON), [FINE], expected)


def test_an_error_in_the_progress_bar_does_not_block_the_caller(model, monkeypatch):
    request = Request(
        [FINE], batch_size=1, tokenize=model.pipeline.reader.for_request(None),
        answer=lambda scored: scored, on_progress=mock.Mock(side_effect=OSError("stderr is closed")),
    )  # fmt: skip
    future = model.pipeline.schedule(request)
    assert future.exception(SOON) is None or isinstance(future.exception(), OSError)
