"""Where `xenc score` scores: with a model of this process, or on workers of a Ray cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import PairError
from ..files import Here, Scoring
from ..presets import PRESETS
from . import options as ask


def add_where(add: ask.Add) -> None:
    """--ray and what its workers are given."""
    add("--ray", metavar="ADDRESS",
        help="score on a Ray cluster: auto for the one that this machine is in, host:port, or local for one "
             "that begins and ends with this command")  # fmt: skip
    add("--ray-workers", type=ask.positive, metavar="N",
        help="how many (default: one for each GPU, or as many as there are cores for)")  # fmt: skip
    add("--ray-cpus", type=ask.positive, metavar="CORES",
        help="of each worker, and so its threads (default: at most 4)")  # fmt: skip


def check_where(options: argparse.Namespace) -> None:
    """Refuse what has no meaning without a cluster, or on one.

    Raises:
        PairError: says which.
    """
    if options.ray is None and (options.ray_workers or options.ray_cpus):
        raise PairError("--ray-workers and --ray-cpus are of a cluster: give --ray ADDRESS too.")
    if options.ray is not None and options.dtype == "fastest":
        raise PairError(
            "--dtype fastest depends on the machine, and the workers' may not be this one: say "
            f"{', '.join(ask.DTYPES)}."
        )


@contextmanager
def scoring(options: argparse.Namespace, execution: str) -> Iterator[Scoring]:
    """Where chunks are scored, once a model is there.

    Raises:
        XencError: a model that cannot be loaded, a cluster that cannot be reached.
    """
    if options.ray is None:
        with ask.load(options, execution) as model:
            _warm(model, options, execution)
            yield Here(model)
        return
    from .. import cluster

    with cluster.connected(options.ray):
        nodes = [node["Resources"] for node in cluster.ray().nodes() if node["Alive"]]
        share = cluster.share_of(
            nodes, workers=options.ray_workers, cpus=options.ray_cpus, device=options.device
        )
        with cluster.Pool(partial(_loaded, ask.load, _for_another_folder(options), execution), share) as pool:
            pool.wait_for_a_worker()
            yield pool


def _loaded(load: Callable[..., Any], options: argparse.Namespace, execution: str) -> Any:
    """A worker's model."""
    model = load(options, execution)
    _warm(model, options, execution)
    return model


def _warm(model: Any, options: argparse.Namespace, execution: str) -> None:
    if PRESETS[execution].compile_mode is not None:
        model.warmup(cache_dir=options.cache_dir)


def _for_another_folder(options: argparse.Namespace) -> argparse.Namespace:
    """The options with whole paths, since workers run elsewhere."""
    found = argparse.Namespace(**vars(options))
    if Path(options.model).is_dir():
        found.model = str(Path(options.model).resolve())
    if options.cache_dir is not None:
        found.cache_dir = options.cache_dir.resolve()
    return found
