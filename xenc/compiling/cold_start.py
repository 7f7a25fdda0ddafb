"""Compiled graphs kept in a folder, so that the next process need not compile them again.

The file holds PyTorch's cache artifacts: generated code and kernels, keyed by graph, versions and device.
Every process traces the model itself and looks the result up, so a stale file costs time, not correctness.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import torch

logger = logging.getLogger(__name__)

_FILE: Final = "compiled.bin"


def load_graphs(folder: Path) -> None:
    """Load artifacts in `folder`, if there are any, into torch.compile's cache."""
    file, reason = folder / _FILE, "it is damaged, or another version's"
    try:
        if torch.compiler.load_cache_artifacts(file.read_bytes()) is not None:
            return
    except FileNotFoundError:
        return
    except Exception as error:  # whatever is wrong with it, compiling again is right
        reason = str(error)
    logger.warning("%s cannot be used and will be replaced: %s", file, reason)


def save_graphs(folder: Path) -> None:
    """Write everything this process has compiled to `folder`, atomically."""
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return
    partial = folder / f"{_FILE}.{uuid4().hex}"  # processes of other machines may share the folder, and ids
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(saved[0])
        partial.replace(folder / _FILE)
    except OSError as error:
        logger.warning("compiled graphs cannot be saved in %s: %s", folder, error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
