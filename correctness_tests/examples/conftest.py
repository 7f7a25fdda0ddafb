"""A server on the loopback interface, in a thread of this process, and ways to ask it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib import import_module
from typing import Any, NamedTuple

import pytest

import xenc
from correctness_tests.waiting import SOON, until

REMEDY = "not installed: pip install 'xenc[serve]'"


class Answered(NamedTuple):
    """A response; the body is what its JSON says."""

    status: int
    headers: Any
    body: Any


class Address(NamedTuple):
    """Where a server listens on this machine."""

    port: int

    def get(self, path: str) -> Answered:
        return answer(self.send("GET", path))

    def post(self, path: str, **body: object) -> Answered:
        return answer(self.send("POST", path, **body))

    def send(self, method: str, path: str, **body: object) -> HTTPConnection:
        """Ask, and leave the answer to `answer`."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        return connection


def answer(connection: HTTPConnection) -> Answered:
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return Answered(response.status, response.headers, json.loads(body))


@contextmanager
def served(model: xenc.CrossEncoder) -> Iterator[Address]:
    """Serve a model meanwhile, and then see that the server ends."""
    pytest.importorskip("fastapi", reason=REMEDY)
    uvicorn = pytest.importorskip("uvicorn", reason=REMEDY)
    application = import_module("examples.serve").application(model)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        assert until(lambda: server.started)
        yield Address(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(SOON)
    assert not thread.is_alive()


def until_ready(address: Address) -> None:
    assert until(lambda: address.get("/ready").status == 200)


@pytest.fixture(scope="module")
def ranker() -> xenc.CrossEncoder:
    return xenc.CrossEncoder(xenc.DEFAULT_MODEL, device="cpu", execution="packed-eager")


@pytest.fixture(scope="module")
def address(ranker: xenc.CrossEncoder) -> Iterator[Address]:
    with served(ranker) as address:
        until_ready(address)
        yield address
