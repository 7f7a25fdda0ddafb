"""Ray itself, and the connection to a cluster."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, Final

from ..errors import NotInstalledError, XencError, first_line

LOCAL: Final = "local"
"""The address of a cluster on this machine, which begins and ends with the process."""


class ClusterError(XencError, RuntimeError):
    """A cluster that cannot be reached or has no room, or workers that end whenever they start."""


def ray() -> Any:
    """Ray.

    Raises:
        NotInstalledError: it is not there.
    """
    try:
        import ray
    except ImportError as error:
        raise NotInstalledError("Ray is not installed: pip install 'xenc[ray]'.") from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster while the block runs. A process that is connected already stays so.

    Standard output may be where the scores go. So what workers print stays in Ray's logs, and what Ray prints
    here (that a worker died) goes to stderr.

    Args:
        address: "local", "auto", "host:port" or "ray://host:port", as `ray.init` takes it.

    Raises:
        ClusterError: nothing answers there.
        NotInstalledError: Ray is not there.
    """
    found = ray()
    with redirect_stdout(sys.stderr):
        if found.is_initialized():
            yield
            return
        _connect(found, address)
        try:
            yield
        finally:
            found.shutdown()


def _connect(found: Any, address: str) -> None:
    asked = {"include_dashboard": False} if address == LOCAL else {}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        found.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **asked)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray at {address!r}: {first_line(error)}. Start it with `ray start --head`, or say local."
        ) from error
    with suppress(ValueError):  # not the main thread: Ray took no signal there either
        signal.signal(signal.SIGTERM, before)
