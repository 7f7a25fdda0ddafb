"""The server of examples/serve.py in a process of its own: on xenc, and on a locked sentence-transformers."""

from __future__ import annotations

import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any, Final

import numpy as np

from perf_tests import peers
from perf_tests.open_loop import Ask
from perf_tests.scorers import DTYPES, checkpoint
from perf_tests.test_load import documents
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder, Overloaded, WarmupReport
from xenc.serving.admission import Admission

DEVICE: Final = "cpu"
XENC, BOUNDED, LOCKED = "xenc", "locked predict, bounded", "locked predict"
SERVERS: Final = (XENC, BOUNDED, LOCKED)
"""The last lets any number of pairs wait."""

STARTING_S: Final = 600
"""Seconds within which a server must be ready, and answer."""

THREADS: Final = 40
"""Of the locked server: as many as Starlette gives to functions that block."""


class Locked:
    """sentence-transformers' model, one caller at a time, with what the server asks of a model.

    Args:
        predict: (pairs, activation function) -> their scores [N].
        limit: the most pairs that may wait; None for any number.
    """

    def __init__(self, predict: Callable[..., np.ndarray], limit: int | None = None) -> None:
        self._predict, self._admission = predict, Admission(limit)
        self._lock, self._threads = threading.Lock(), ThreadPoolExecutor(THREADS)

    def submit(self, pairs: Sequence[Pair], *, activation_fn: Any) -> Future[np.ndarray]:
        with self._admission.accept(len(pairs)) as leave:
            future = self._threads.submit(self._one_at_a_time, pairs, activation_fn)
            future.add_done_callback(leave)
            return future

    def _one_at_a_time(self, pairs: Sequence[Pair], activation_fn: Any) -> np.ndarray:
        with self._lock:
            return self._predict(pairs, activation_fn=activation_fn)

    def warmup(self, cache_dir: str | None = None) -> WarmupReport:
        """Nothing is compiled."""
        self._predict(documents(DEVICE).round(0), activation_fn=None)
        return WarmupReport()

    def close(self) -> None:
        self._threads.shutdown()


def model_of(server: str, limit: int) -> Any:
    batch_size, dtype, path = documents(DEVICE).batch_size, DTYPES[DEVICE], checkpoint(DEVICE)
    if server == XENC:
        execution = replace(PRESETS["packed"], strict=True)
        return CrossEncoder(
            str(path), device=DEVICE, max_length=peers.MAX_LENGTH, model_kwargs={"dtype": dtype},
            execution=execution, max_waiting_pairs=limit,
        )  # fmt: skip
    stock = peers.SentenceTransformers(path, DEVICE, dtype, batch_size).model

    def predict(pairs: Sequence[Pair], *, activation_fn: Any) -> np.ndarray:
        return stock.predict(
            list(pairs), batch_size=batch_size, activation_fn=activation_fn, show_progress_bar=False
        )

    return Locked(predict, limit if server == BOUNDED else None)


def serve(server: str, limit: int, listening: socket.socket) -> None:
    """Serve until SIGTERM."""
    import uvicorn

    from examples.serve import application

    config = uvicorn.Config(
        application(model_of(server, limit)), log_level="warning", timeout_keep_alive=3600
    )
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def running(server: str, limit: int) -> Iterator[Ask]:
    """A process that serves, ready; what it yields asks it for logits."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(server, limit, listening))
        process.start()
    try:
        wait_until_ready(port, process.is_alive)
        yield over_http(port)
    finally:
        process.terminate()
        process.join()


def wait_until_ready(port: int, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STARTING_S
    while alive() and time.monotonic() < deadline:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=STARTING_S)
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the server is not ready after {STARTING_S} s, or it ended; see what it printed.")


def over_http(port: int) -> Ask:
    """Asks a server for the logits [N] of pairs that share a query; each thread keeps one connection."""
    of_thread = threading.local()

    def ask(pairs: Sequence[Pair]) -> np.ndarray:
        if not hasattr(of_thread, "connection"):
            of_thread.connection = HTTPConnection("127.0.0.1", port, timeout=STARTING_S)
        ((query,), texts) = {query for query, _ in pairs}, [text for _, text in pairs]
        body = json.dumps({"query": query, "texts": texts, "raw_scores": True})
        of_thread.connection.request("POST", "/rerank", body, {"Content-Type": "application/json"})
        response = of_thread.connection.getresponse()
        said = response.read()
        if response.status == 429:
            raise Overloaded(said.decode())
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {said.decode()}")
        scores = np.empty(len(pairs), dtype=np.float32)
        for hit in json.loads(said):
            scores[hit["index"]] = hit["score"]
        return scores

    return ask
