"""What a worker is given of the cluster, and what runs in its process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from ..files import Answers, begun
from ..files.chunk import Pair
from .connection import ClusterError

MOST_CPUS: Final = 4
"""Cores that a worker asks for unless told otherwise: so many tokenize as fast as a GPU scores
(docs/hopper.md), and more threads than that serve a small model badly."""


@dataclass(frozen=True)
class Share:
    """What workers are given.

    Attributes:
        workers: how many there are.
        cpus: cores of each, and the threads that it computes and tokenizes with.
        gpus: GPUs of each, 1 or 0.
    """

    workers: int
    cpus: int
    gpus: int


def share_of(
    nodes: Iterable[Mapping[str, float]], *, workers: int | None, cpus: int | None, device: str | None
) -> Share:
    """A worker for each GPU, or for each group of cores where there are none.

    Args:
        nodes: of each machine its "CPU" and "GPU".
        workers, cpus: what is asked for; None for as many workers as there is room for, with at most
            MOST_CPUS cores each.
        device: None for GPUs where there are any.

    Raises:
        ClusterError: there is no room for one worker.
    """
    has = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    with_gpu = [node for node in has if node[1]]
    gpus = int(bool(with_gpu) if device is None else device.startswith("cuda"))
    usable = [node for node in (with_gpu if gpus else has) if node[0]]
    if cpus is None:
        cpus = min([MOST_CPUS, *(cores // (of if gpus else 1) for cores, of in usable)])
        cpus = max(cpus, 1)
    room = sum(min(cores // cpus, of) if gpus else cores // cpus for cores, of in usable)
    if workers is None and not room:
        asked = f"{cpus} CPUs" + (" and a GPU" if gpus else "")
        raise ClusterError(
            f"no machine of the cluster has {asked} for a worker: they have (CPUs, GPUs) {has}. Ask for "
            "less, or say how many workers the cluster will grow to have."
        )
    return Share(workers or room, cpus, gpus)


def use_cores(count: int) -> None:
    """Compute and tokenize with so many threads; before a tokenizer is used."""
    torch.set_num_threads(count)
    os.environ["RAYON_NUM_THREADS"] = str(count)  # of the tokenizer's Rust backend


class Member:
    """One worker: a process with a model. Ray calls its methods, some at a time."""

    def __init__(self, load: Callable[[], Any], cpus: int) -> None:
        """Load a model. An error of that is kept, since Ray tells only its text if this raises."""
        self._cpus, self._failed = cpus, None
        use_cores(cpus)
        try:
            self._model = load()
        except Exception as error:
            self._failed = error

    def ready(self) -> None:
        """Returns once the model is loaded.

        Raises:
            XencError: it could not be.
        """
        if self._failed is not None:
            raise self._failed

    def score(self, pairs: Sequence[Pair]) -> Answers:
        """Score pairs; one at fault fails alone."""
        torch.set_num_threads(self._cpus)  # each call has a thread of its own
        return begun(self._model, pairs)()
