"""What an earlier process compiled, kept in a folder, so that the next one need not compile it again.

PyTorch's own artifacts hold generated code and kernels, keyed by graph, versions and device. Tracing is done
anew, and its result decides whether they fit, so a stale folder costs time and never an answer.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import torch

logger = logging.getLogger(__name__)

_FILE: Final = "compiled.bin"


def load_graphs(folder: Path) -> bool:
    """Make artifacts in `folder` known to torch.compile; whether there were any to load."""
    try:
        artifacts = (folder / _FILE).read_bytes()
    except FileNotFoundError:
        return False
    try:
        loaded = torch.compiler.load_cache_artifacts(artifacts)
    except Exception as error:  # whatever is wrong with it, compiling anew is right
        logger.warning("%s cannot be used and will be replaced: %s", folder / _FILE, error)
        return False
    return loaded is not None


def save_graphs(folder: Path) -> None:
    """Write what this process compiled so far into `folder`, all at once."""
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{_FILE}.partial"
    partial.write_bytes(saved[0])
    partial.replace(folder / _FILE)
