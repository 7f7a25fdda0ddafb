"""Models of workers that end their process when they are told to. Workers import this module."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from correctness_tests.files.fake_model import FakeModel
from xenc import ModelError
from xenc.files.chunk import Pair

ALWAYS = "ends whoever reads this"
ONCE = "ends who reads this first: "
"""A path follows, of a file that says that somebody did."""

SLOW = "takes long"
SECONDS = 0.3


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def first(path: str) -> bool:
    """Whether no process was here before."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Killer(FakeModel):
    def submit(self, inputs: Sequence[Pair]) -> Future[Any]:
        for query, _ in inputs:
            if query == ALWAYS or (query.startswith(ONCE) and first(query.removeprefix(ONCE))):
                end()
            if query == SLOW:
                time.sleep(SECONDS)
        return super().submit(inputs)


def load(*_: object) -> Killer:
    """As `options.load`."""
    return Killer()


def cannot_load(*_: object) -> Killer:
    raise ModelError("there is no such model")


def dies_while_loading() -> Killer:
    end()
    return Killer()


def dies_while_loading_once(path: Path) -> Killer:
    if first(str(path)):
        end()
    return Killer()
