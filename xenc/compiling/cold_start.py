"""What an earlier process compiled, kept in a folder, so that the next one need not compile it again.

PyTorch's own artifacts hold generated code and kernels, keyed by graph, versions and device. Tracing is done
anew, and its result decides whether they fit, so a stale folder costs time and never an answer.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch

logger = logging.getLogger(__name__)

_FILE: Final = "compiled.bin"


def load_graphs(folder: Path) -> None:
    """Make artifacts in `folder` known to torch.compile, if there are any."""
    file, reason = folder / _FILE, "it is damaged, or another version's"
    try:
        if torch.compiler.load_cache_artifacts(file.read_bytes()) is not None:
            return
    except FileNotFoundError:
        return
    except Exception as error:  # whatever is wrong with it, compiling anew is right
        reason = str(error)
    logger.warning("%s cannot be used and will be replaced: %s", file, reason)


def save_graphs(folder: Path) -> None:
    """Write what this process compiled so far into `folder`, all at once."""
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return
    partial = folder / f"{_FILE}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(saved[0])
        partial.replace(folder / _FILE)
    except OSError as error:
        logger.warning("what was compiled cannot be saved in %s: %s", folder, error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
