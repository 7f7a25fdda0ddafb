"""examples/serve.py over the loopback interface: what it answers, refuses and drops, and how it stops."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import xenc
from correctness_tests.examples.conftest import REMEDY, Address, answer, served, until_ready
from correctness_tests.scoring import logits, nothing_compiles
from correctness_tests.serving.conftest import FINE, POISON, poisoned
from correctness_tests.waiting import SOON, held, threads_of_xenc, until

ROOT = Path(__file__).parents[2]
QUERY = "How do bees make honey?"
TEXTS = [
    "A bank lends you the price of a house.",
    "Workers collect nectar from flowers, carry it to the hive, and fan it until it is thick.",
    "Milk stays fresh for about a week in the refrigerator.",
    "Bees make honey from nectar.",
]
PAIRS = [(QUERY, text) for text in TEXTS]
BEST_FIRST = [3, 1, 2, 0]


@pytest.fixture
def bounded(tiny: Path) -> Iterator[xenc.CrossEncoder]:
    model = xenc.CrossEncoder(str(tiny), device="cpu", execution="packed-eager", max_waiting_pairs=10)
    with model:
        yield model


def by_index(hits: list[dict[str, object]], name: str) -> list[object]:
    """The scores of all documents in the caller's order; hits must come best first."""
    scores = [hit[name] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert sorted(hit["index"] for hit in hits) == list(range(len(hits)))
    return [hit[name] for hit in sorted(hits, key=lambda hit: hit["index"])]


def close(scores: object, expected: object) -> None:
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_the_shape_of_text_embeddings_inference_has_the_scores_of_predict(ranker, address):
    hits = address.post("/rerank", query=QUERY, texts=TEXTS, raw_scores=False, truncate=True).body
    close(by_index(hits, "score"), ranker.predict(PAIRS))
    assert [hit["index"] for hit in hits] == BEST_FIRST
    assert {name for hit in hits for name in hit} == {"index", "score"}


def test_raw_scores_are_logits_and_texts_return_if_asked_for(ranker, address):
    hits = address.post("/rerank", query=QUERY, texts=TEXTS, raw_scores=True, return_text=True).body
    close(by_index(hits, "score"), logits(ranker, PAIRS))
    assert [hit["text"] for hit in hits] == [TEXTS[row] for row in BEST_FIRST]


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_shape_of_cohere_has_the_scores_of_predict(ranker, address, version):
    asked = {"model": "any", "query": QUERY, "documents": TEXTS}
    first, second = (address.post(f"/v{version}/rerank", **asked).body for _ in range(2))
    close(by_index(first["results"], "relevance_score"), ranker.predict(PAIRS))
    assert first["meta"]["api_version"] == {"version": version}
    assert first["id"] != second["id"]
    assert {name for hit in first["results"] for name in hit} == {"index", "relevance_score"}

    best = address.post(f"/v{version}/rerank", **asked, top_n=2, return_documents=True).body["results"]
    assert [(hit["index"], hit["document"]) for hit in best] == [
        (row, {"text": TEXTS[row]}) for row in BEST_FIRST[:2]
    ]


def test_requests_that_meet_get_their_own_scores(ranker, address):
    def ask(seed: int) -> None:
        texts = random.Random(seed).choices(TEXTS, k=1 + seed % 7)
        hits = address.post("/rerank", query=QUERY, texts=texts).body
        close(by_index(hits, "score"), [expected[text] for text in texts])

    expected = dict(zip(TEXTS, ranker.predict(PAIRS), strict=True))
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(ask, range(40)))


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/rerank", {"query": QUERY}, "texts"),
        ("/rerank", {"query": QUERY, "texts": []}, "texts"),
        ("/rerank", {"query": "", "texts": TEXTS}, "query"),
        ("/rerank", {"query": QUERY, "texts": [*TEXTS, ""]}, ["texts", 4]),
        ("/rerank", {"query": QUERY, "texts": [None]}, ["texts", 0]),
        ("/v1/rerank", {"query": QUERY, "documents": []}, "documents"),
        ("/v2/rerank", {"query": QUERY, "documents": ["a", ""]}, ["documents", 1]),
        ("/v2/rerank", {"query": QUERY, "documents": TEXTS, "top_n": 0}, "top_n"),
    ],
)
def test_a_body_that_cannot_be_scored_is_refused_with_the_place(address, path, body, named):
    refused = address.post(path, **body)
    assert refused.status == 422
    (fault,) = refused.body["detail"]
    assert fault["loc"] == ["body", *(named if isinstance(named, list) else [named])]


def test_overload_is_429_with_a_time_to_wait_and_loses_nothing(bounded):
    with served(bounded) as address:
        until_ready(address)
        with held(bounded):
            waiting = [address.send("POST", "/rerank", query="a", texts=["b"] * 4) for _ in range(2)]
            assert until(lambda: bounded.waiting_pairs == 8)
            for path, name in (("/rerank", "texts"), ("/v2/rerank", "documents")):
                refused = address.post(path, query="a", **{name: ["b"] * 3})
                assert refused.status == 429
                assert int(refused.headers["Retry-After"]) >= 1
                assert "8 pairs wait already" in refused.body["detail"]
            assert bounded.waiting_pairs == 8
        answers = [answer(connection) for connection in waiting]
        assert [answered.status for answered in answers] == [200, 200]
        for answered in answers:
            close(by_index(answered.body, "score"), bounded.predict([("a", "b")] * 4))
        assert address.post("/rerank", query="a", texts=["b"] * 10).status == 200


def test_more_documents_than_may_ever_wait_are_413_and_not_to_be_sent_again(bounded):
    with served(bounded) as address:
        until_ready(address)
        refused = address.post("/rerank", query="a", texts=["b"] * 11)
    assert refused.status == 413
    assert "11 pairs can never be accepted" in refused.body["detail"]
    assert "split" in refused.body["detail"]
    assert "Retry-After" not in refused.headers


def test_nan_is_500_in_one_line_and_for_nobody_else(tiny):
    with poisoned(tiny) as model, served(model) as address:
        until_ready(address)
        with held(model):
            asked = [
                address.send("POST", "/rerank", query=query, texts=[FINE[1]])
                for query in (FINE[0], POISON[0])
            ]
            assert until(lambda: model.waiting_pairs == 2)
        fine, failed = map(answer, asked)
    assert fine.status == 200
    assert failed.status == 500
    assert "NaN" in failed.body["detail"]
    assert "\n" not in failed.body["detail"]


class WithAnotherPair(xenc.CrossEncoder):
    """Adds to each request a pair that cannot be scored."""

    def submit(self, inputs, **how):
        return super().submit([*inputs, ("a", None)], **how)


def test_a_pair_that_xenc_refuses_is_422(tiny):
    with (
        WithAnotherPair(str(tiny), device="cpu", execution="packed-eager") as model,
        served(model) as address,
    ):
        until_ready(address)
        refused = address.post("/rerank", query="a", texts=["b"])
    assert refused.status == 422
    assert "pair 1 holds" in refused.body["detail"]


def test_it_lives_while_it_warms_up_and_is_ready_when_nothing_is_left_to_compile(one_layer, dynamo_alone):
    model = xenc.CrossEncoder(str(one_layer), device="cpu", max_length=64)
    with served(model) as address:
        with held(model):
            assert address.get("/health").status == 200
            for early in (address.get("/ready"), address.post("/rerank", query="a", texts=["b"])):
                assert early.status == 503
                assert int(early.headers["Retry-After"]) >= 1
            assert model.waiting_pairs == 0
        assert until(lambda: address.get("/ready").status == 200, seconds=300)
        with nothing_compiles():
            assert address.post("/rerank", query="a", texts=["b", "b c"] * 20).status == 200


def test_what_a_client_waited_for_that_left_is_dropped_and_nothing_else(bounded):
    with served(bounded) as address:
        until_ready(address)
        with held(bounded, 6 * SOON):  # longer than is waited for the count to fall
            leaving = address.send("POST", "/rerank", query="a", texts=["b"] * 6)
            assert until(lambda: bounded.waiting_pairs == 6)
            staying = address.send("POST", "/v2/rerank", query="a", documents=["b"] * 3)
            assert until(lambda: bounded.waiting_pairs == 9)
            leaving.close()
            assert until(lambda: bounded.waiting_pairs == 3)
        answered = answer(staying)
        assert answered.status == 200
        assert len(answered.body["results"]) == 3


def test_a_server_that_stops_ends_the_threads_of_its_model(tiny):
    before = threads_of_xenc()
    with served(xenc.CrossEncoder(str(tiny), device="cpu", execution="packed-eager")) as address:
        until_ready(address)
        assert address.post("/rerank", query="a", texts=["b"]).status == 200
        assert threads_of_xenc() - before
    assert until(lambda: not threads_of_xenc() - before)


SCRIPT = """
    import os, socket, sys, threading, time, uvicorn, xenc
    from examples.serve import application

    model = xenc.CrossEncoder(os.environ["CHECKPOINT"], device="cpu", execution="packed-eager")
    go, close = threading.Event(), model.close

    def hold_until_told():
        sys.stdin.readline()
        model._worker.on_device(go.wait, 60)
        print("held", flush=True)
        while model.waiting_pairs < 3:
            time.sleep(0.01)
        print("in flight", flush=True)
        sys.stdin.readline()
        go.set()

    def tell():
        print("closing with", model.waiting_pairs, "waiting", flush=True)
        close()
        print("closed", flush=True)

    model.close = tell
    threading.Thread(target=hold_until_told, daemon=True).start()
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(application(model), log_config=None)).run(sockets=[listening])
"""


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_on_sigterm_what_is_in_flight_is_answered_and_then_the_model_is_closed(tiny, eager):
    pytest.importorskip("uvicorn", reason=REMEDY)
    path = os.pathsep.join([str(ROOT), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "CHECKPOINT": str(tiny), "PYTHONPATH": path},
    )  # fmt: skip
    try:
        address = Address(int(process.stdout.readline()))
        assert until(lambda: not refuses(address.port) and address.get("/ready").status == 200, seconds=60)
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "held\n"
        asked = address.send("POST", "/rerank", query="a", texts=["b", "c", "d"])
        assert process.stdout.readline() == "in flight\n"
        process.terminate()
        assert until(lambda: refuses(address.port))
        time.sleep(1)  # in which a server that waits for nobody would end
        print(file=process.stdin, flush=True)
        answered = answer(asked)
        assert answered.status == 200
        np.testing.assert_allclose(
            by_index(answered.body, "score"), eager.predict([("a", "b"), ("a", "c"), ("a", "d")]), atol=1e-4
        )
        assert process.stdout.read().splitlines() == ["closing with 0 waiting", "closed"]
        process.wait(60)
    finally:
        process.kill()
        process.communicate()
