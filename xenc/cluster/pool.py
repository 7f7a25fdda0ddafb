"""A pool of workers on Ray. One that dies is replaced, and what it had is sent again."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self

from ..files import Answers
from ..files.chunk import Chunk
from .connection import ClusterError, ray
from .members import Member, Share

logger = logging.getLogger(__name__)

IN_FLIGHT: Final = 2
"""Chunks that a worker has at a time: one is tokenized while the other is scored."""

AHEAD: Final = 4
"""Chunks begun for each worker while one is awaited: a chunk that is sent again keeps others waiting."""

MOST_DEATHS: Final = 3
"""Workers that may die on one chunk; and in a row while they start."""

PATIENCE_S: Final = 60.0
"""How long no worker may start before that is said."""


@dataclass(eq=False)
class _Job:
    """A chunk, how many workers died while they had it, and what became of it."""

    chunk: Chunk
    deaths: int = 0
    answers: Answers | None = None


@dataclass(eq=False)
class _Worker:
    """An actor, whether its model is loaded, and what it has to score."""

    actor: Any
    up: bool = False
    jobs: list[_Job] = field(default_factory=list)

    def takes(self, job: _Job) -> bool:
        """Whether it may have a chunk now. A chunk that saw a worker die is alone on the next one."""
        if job.deaths or any(each.deaths for each in self.jobs):
            return self.up and not self.jobs
        return self.up and len(self.jobs) < IN_FLIGHT


class Pool:
    """Scores chunks on workers of the cluster that this process is connected to.

    Use it in a `with` block; its workers end with it, and with this process. It belongs to one thread.

    Args:
        load: makes a worker's model, in the worker's process; it must be something that can be pickled.
        share: how many workers there are, and what each is given.

    Attributes:
        ahead: see `files.Scoring`.

    Raises:
        XencError: `load` raised it in a worker. Comes with the first answer, as any other error does.
        ClusterError: MOST_DEATHS workers in a row died before their model was loaded.
    """

    def __init__(self, load: Callable[[], Any], share: Share) -> None:
        self._ray, self._share = ray(), share
        self.ahead = AHEAD * share.workers
        self._make = partial(
            self._ray.remote(Member).options(
                num_cpus=share.cpus, num_gpus=share.gpus, max_concurrency=IN_FLIGHT,
                scheduling_strategy="SPREAD",
            ).remote,
            load, share.cpus,
        )  # fmt: skip
        self._sent: dict[Any, tuple[_Worker, _Job | None]] = {}
        """By Ray's reference to the answer; without a job where a worker starts."""
        self._waiting: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._died_starting, self._waits_since = 0, time.monotonic()
        for _ in range(share.workers):
            self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            self._end(worker)

    def begin(self, chunk: Chunk) -> Callable[[], Answers]:
        """Send a chunk to a worker, or let it wait for one; what is returned waits for the answers."""
        job = _Job(chunk)
        if not chunk.pairs:
            job.answers = Answers({}, {})
        else:
            self._waiting.append(job)
            self._take(0)
        return partial(self._wait, job)

    def wait_for_a_worker(self) -> None:
        """Return once a worker has its model."""
        while not any(worker.up for worker in self._workers):
            self._take(PATIENCE_S)

    def _wait(self, job: _Job) -> Answers:
        while job.answers is None:
            self._take(PATIENCE_S)
        return job.answers

    def _start(self) -> None:
        worker = _Worker(self._make())
        self._workers.append(worker)
        self._sent[worker.actor.ready.remote()] = worker, None

    def _send(self) -> None:
        """Give chunks to workers that may have more, to the one that has least first."""
        while self._waiting:
            free = [worker for worker in self._workers if worker.takes(self._waiting[0])]
            if not free:
                return
            worker, job = min(free, key=lambda each: len(each.jobs)), self._waiting.popleft()
            worker.jobs.append(job)
            self._sent[worker.actor.score.remote(job.chunk.pairs)] = worker, job

    def _take(self, seconds: float) -> None:
        """Wait for an answer, at most so long; take all that are there, and send what waits."""
        self._send()
        self._ray.wait(list(self._sent), num_returns=1, timeout=seconds)
        there, _ = self._ray.wait(list(self._sent), num_returns=len(self._sent), timeout=0)
        died = [worker for reference in there if (worker := self._took(reference)) is not None]
        for worker in dict.fromkeys(died):  # last: what one has answered is not sent again
            self._replace(worker)
        self._send()
        self._say_that_none_starts()

    def _took(self, reference: Any) -> _Worker | None:
        """Take an answer; or the worker that died in place of one."""
        errors = self._ray.exceptions
        worker, job = self._sent[reference]
        try:
            answers = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError:
            return worker
        del self._sent[reference]
        if job is None:
            worker.up, self._died_starting = True, 0
        else:
            worker.jobs.remove(job)
            job.answers = answers
        return None

    def _replace(self, worker: _Worker) -> None:
        """Start another worker for one that died, and send again what it had."""
        self._end(worker)
        self._workers.remove(worker)
        self._sent = {reference: sent for reference, sent in self._sent.items() if sent[0] is not worker}
        if not worker.up:
            self._died_starting += 1
            if self._died_starting >= MOST_DEATHS:
                raise ClusterError(
                    f"{MOST_DEATHS} workers died one after the other while they loaded the model: is there "
                    "enough memory for it on each machine? Their logs are Ray's."
                )
        for job in reversed(worker.jobs):
            job.deaths += 1
            if job.deaths < MOST_DEATHS:
                self._waiting.appendleft(job)
            else:
                job.answers = _given_up(job.chunk.numbers)
        self._start()

    def _end(self, worker: _Worker) -> None:
        with suppress(Exception):  # it may be dead, or the cluster gone
            self._ray.kill(worker.actor)

    def _say_that_none_starts(self) -> None:
        if any(worker.up for worker in self._workers):
            self._waits_since = time.monotonic()
        elif time.monotonic() - self._waits_since >= PATIENCE_S:
            self._waits_since = time.monotonic()
            share = self._share
            logger.warning(
                "no worker has started yet: each wants %d CPUs and %d GPUs, and of the cluster %s are free",
                share.cpus, share.gpus,
                {name: self._ray.available_resources().get(name, 0) for name in ("CPU", "GPU")},
            )  # fmt: skip


def _given_up(numbers: Sequence[int]) -> Answers:
    why = f"{MOST_DEATHS} workers died while they scored lines {numbers[0]} to {numbers[-1]}"
    return Answers({}, dict.fromkeys(range(len(numbers)), why))
