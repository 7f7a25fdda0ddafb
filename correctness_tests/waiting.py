"""Ways to make threads meet: hold a model's device, and wait until something is so."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xenc

SOON = 10
"""Seconds after which what has not happened never will."""


@contextmanager
def held(model: xenc.CrossEncoder, seconds: float = SOON) -> Iterator[None]:
    """The device waits meanwhile, so that all that is submitted waits together; at most so many seconds."""
    go = threading.Event()
    model._worker.on_device(go.wait, seconds)
    try:
        yield
    finally:
        go.set()


def until(condition: Callable[[], bool], seconds: float = SOON) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def read_fully(model: xenc.CrossEncoder, pairs: int) -> None:
    """Wait until so many pairs wait for the device."""
    waiting = model.pipeline.queue._waiting
    assert until(lambda: len(waiting) == pairs), len(waiting)


def threads_of_xenc() -> set[threading.Thread]:
    """Those that run."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("xenc-")}


def run_python(
    script: str, checkpoint: Path, seconds: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, with `model`, which is packed and not compiled, and `PAIRS`."""
    preamble = """
        import os, threading, time, torch, xenc
        model = xenc.CrossEncoder(os.environ["CHECKPOINT"], device="cpu", execution="packed-eager")
        PAIRS = [("where is it", "here it is " * words) for words in range(8)]
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(preamble) + textwrap.dedent(script)],
        env={**os.environ, "CHECKPOINT": str(checkpoint), **environment},
        timeout=seconds, capture_output=True, text=True,
    )  # fmt: skip
